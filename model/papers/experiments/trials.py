"""What experiments share: a recipe with some changes, the pictures to measure on, rows that are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from model.datasets import Corpus, read_task
from model.errors import ModelError
from model.papers.options import Run
from model.papers.recipe import keep_recipe, recipe_file
from model.papers.sketch_an_anchor import AnchorRecipe, is_anchor_recipe, read_anchor_recipe

Row = TypeVar("Row")
Measured = Literal["zero-shot", "generalised"]


@dataclass(frozen=True)
class ExperimentRequest:
    """What an experiment trains from, and on which pictures it measures.

    Attributes:
        recipe: of Sketch-an-Anchor; each training changes it a little.
        backbone: pretrained weights that all trainings start from.
        folder: keeps trainings, checkpoints and rows.
        data, words: as for a training.
        split: the classes that are measured on; None for "unseen" of the optional data or, with ``data``, for the
            classes that no training on it sees.
        steps: of each training; None for the recipe's.
    """

    recipe: Path
    backbone: str
    folder: Path
    data: Path | None = None
    words: Path | None = None
    split: str | None = None
    steps: int | None = None

    def changed_recipe(self, name: str, changes: Mapping[str, Any]) -> Path:
        """Writes the recipe with these changes to FOLDER/NAME.toml.

        Raises ModelError where another one is there, and for a recipe of another method.

        changes: keys of a recipe; dicts are tables.
        """
        self.read_recipe()
        base = recipe_file(self.recipe).absolute()
        changes = changes if self.steps is None else {"steps": self.steps, **changes}
        tables = {key: value for key, value in changes.items() if isinstance(value, Mapping)}
        lines = _lines({"base": str(base)} | {key: value for key, value in changes.items() if key not in tables})
        for key, table in tables.items():
            lines += [f"[{key}]", *_lines(table)]
        path = self.folder / f"{name}.toml"
        keep_recipe(path, "\n".join(lines) + "\n", "another experiment")
        return path

    def run(self, name: str, changes: Mapping[str, Any]) -> Run:
        """The training by the changed recipe, to the checkpoint FOLDER/NAME.safetensors."""
        recipe = self.changed_recipe(name, changes)
        target = self.folder / f"{name}.safetensors"
        return Run(recipe, self.backbone, self.folder / name, target, self.data, words=self.words)

    def read_recipe(self) -> AnchorRecipe:
        """The recipe as it is. Raises ModelError for one of another method."""
        if not is_anchor_recipe(self.recipe):
            raise ModelError(f"{self.recipe} is no recipe of Sketch-an-Anchor; one is sketch-an-anchor/whole")
        return read_anchor_recipe(self.recipe)

    def measured_pictures(self, protocol: Measured = "zero-shot") -> Corpus:
        """The queries and the gallery of the classes that are measured on."""
        if self.data is None:
            return read_task(protocol, self.split or "unseen").corpus
        if self.split is not None:
            raise ModelError("--split names classes of the optional data; leave it or --data out")
        whole = read_task("generalised", data=self.data).corpus
        return whole if protocol == "generalised" else whole.of({sketch.label for sketch in whole.sketches})


def kept_row(kind: type[Row], path: Path) -> Row | None:
    """The row that was written there; None where there is none that can be read."""
    with suppress(OSError, ValidationError):
        return TypeAdapter(kind).validate_json(path.read_bytes())
    return None


def keep_row(row: Any, path: Path) -> None:
    """Writes a row, a dataclass, for ``kept_row``."""
    path.write_text(json.dumps(dataclasses.asdict(row)) + "\n", encoding="utf-8")


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *rows))


def _lines(values: Mapping[str, Any]) -> list[str]:
    # A JSON string, number or truth value is one of TOML, too.
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]

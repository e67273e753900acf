"""Trainings by any recipe, and as rows of tables: each is done once, measured, and kept as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from model.checkpoint import file_sha256
from model.datasets import Corpus
from model.errors import ModelError
from model.evaluation import Interval, intervals, measure, score_matrices
from model.matcher import load
from model.papers.clip_at import train_clip_at
from model.papers.recipe import AnchorRecipe, ClipAtRecipe, Recipe, TwoSidedRecipe, ZseRecipe, read_recipe
from model.papers.runs import Run, Watch, check_target
from model.papers.sketch_an_anchor import train_anchors
from model.papers.zse.trainer import train_zse
from model.papers.zse.two_sided import train_two_sided

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


@dataclass(frozen=True)
class Outcome:
    """The rows of a table, which are dataclasses, the table in Markdown, and what draws a plot into a file, if any."""

    rows: Sequence[DataclassInstance]
    table: str
    draw: Callable[[Path], object] | None = None


def train(run: Run, report: Callable[[str], object], watch: Watch = lambda trainer, figures: None) -> bool:
    """Trains a network of the kind that the recipe is for.

    ``report`` gets sentences about the progress. ``watch`` is called whenever the network was measured on the
    validation classes: every ``evaluate_every`` steps and at the end, before the state of that step is saved. A
    training that goes on may repeat steps, and then shows them again.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    Raises ModelError for a recipe, backbone, start, word vectors or data that do not fit together.
    """
    # First what takes no time: preparing many pictures takes minutes, and a training hours.
    recipe = read_recipe(run.recipe, Recipe)
    check_target(run.target, run.folder)
    if isinstance(recipe, AnchorRecipe):
        return train_anchors(recipe, run, report, watch)
    if isinstance(recipe, ClipAtRecipe):
        return train_clip_at(recipe, run, report, watch)
    if isinstance(recipe, TwoSidedRecipe):
        return train_two_sided(recipe, run, report, watch)
    assert isinstance(recipe, ZseRecipe)
    return train_zse(recipe, run, report, watch)


@dataclass(frozen=True)
class TrainedRow:
    """One network of a table.

    Attributes:
        name: of its recipe.
        seed: of its recipe.
        pictures: how many it was trained on, repeats counted.
        parameters: how many numbers its checkpoint holds.
        queries, photos: how many it was measured on.
        figures: for each method "map_all" and "precision_100", with 95% intervals over queries; the method "vis" is the
            mean visual token, without any relation network.
        checkpoint_sha256: of the weights that were measured.
    """

    name: str
    seed: int
    pictures: int
    parameters: int
    queries: int
    photos: int
    figures: dict[str, dict[str, Interval]]
    checkpoint_sha256: str


def trained_row(run: Run, corpus: Corpus, report: Callable[[str], object]) -> TrainedRow:
    """Trains and measures a network, of which it reports the name.

    What was done before is kept: the checkpoint, and the figures in a file beside it.

    Args:
        run: the name of its target is the row's.
        corpus: the queries and the gallery.
    """
    checkpoint = run.target
    if checkpoint is None:
        raise ModelError("a row needs a checkpoint that is measured")
    report(f"{checkpoint.stem}:")
    if not checkpoint.exists():
        train(run, report)
    kept, sha256 = checkpoint.with_suffix(".json"), file_sha256(checkpoint)
    row = read_record(TrainedRow, kept)
    measured = len(corpus.sketches), len(corpus.photos), sha256
    if row is not None and (row.queries, row.photos, row.checkpoint_sha256) == measured:
        return row
    matcher = load(checkpoint)
    result = measure(corpus, score_matrices(matcher, corpus, visual=matcher.token_count("photo") > 1))
    of_method = intervals(result.per_query, "queries")
    recipe = read_recipe(run.recipe, Recipe)
    row = TrainedRow(
        name=checkpoint.stem,
        seed=recipe.seed,
        pictures=recipe.pictures,
        parameters=sum(parameter.numel() for parameter in matcher.network.parameters()),
        queries=len(corpus.sketches),
        photos=len(corpus.photos),
        figures={
            method: {figure: of_method[method][figure] for figure in ("map_all", "precision_100")}
            for method in result.methods
            if not method.endswith("+diffusion")
        },
        checkpoint_sha256=sha256,
    )
    write_record(kept, row)
    return row


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Reads what each step of the training in a folder has written to its log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def write_record(path: Path, record: DataclassInstance) -> None:
    """Writes it as one JSON object, all or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_record(kind: type[Record], path: Path) -> Record | None:
    """Reads a record back; None where there is no file. Raises ModelError where it holds another thing."""
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"{path} cannot be read: {where}: {first['msg']}; remove it, and it is measured anew"
        ) from error


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *rows))


def with_interval(interval: Interval) -> str:
    """A figure with its interval, for a table."""
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"

"""The trainings of one method: one for each learning rate, each resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint import read_metadata, save_checkpoint
from model.network import Calibration
from model.papers.budget import Budget, BudgetedRecipe, at_budget
from model.papers.comparison.methods import ComparedMethod
from model.papers.comparison.rows import Point, TrainedRate, read_record, write_record
from model.papers.options import Glimpse, Run
from model.papers.runs import train

# What a recipe's own learning rates are multiplied by.
FACTORS = (0.3, 1.0, 3.0)
_TEACHER = "teacher.safetensors"


@dataclass(frozen=True)
class Training:
    """Where a training at one rate lies.

    Attributes:
        folder: of its recipe, its state and what it leaves.
        recipe: what it is trained by.
    """

    folder: Path
    recipe: BudgetedRecipe

    @property
    def recipe_file(self) -> Path:
        """The recipe, which ``python -m model train`` takes as well."""
        return self.folder / "recipe.toml"

    @property
    def done(self) -> Path:
        """Written last: what the training was like."""
        return self.folder / "done.json"

    @property
    def last(self) -> Path:
        """The network at the end, not calibrated."""
        return self.folder / "last.safetensors"

    @property
    def peak(self) -> Path:
        """The network when it was best on the validation classes, not calibrated."""
        return self.folder / "peak.safetensors"


def planned(method: ComparedMethod, budget: Budget, folder: Path) -> tuple[Training, ...]:
    """The trainings of a method in the folder of the comparison; none for a method that is not trained.

    Raises ModelError for a recipe that is missing or cannot be used, and a budget that is too small for it.
    """
    recipes = [at_budget(method.recipe, budget, factor) for factor in FACTORS] if method.trained else []
    return tuple(Training(folder / method.name / f"{recipe.rate:g}", recipe) for recipe in recipes)


def trained(
    training: Training,
    backbone: str,
    words: Path | None,
    siblings: tuple[Training, ...],
    report: Callable[[str], object],
) -> TrainedRate:
    """Trains, unless it is done; a training that was stopped goes on.

    siblings: all trainings of the method, of which an earlier one may have asked the teacher already.
    """
    if (found := read_record(TrainedRate, training.done)) is not None:
        return found
    training.folder.mkdir(parents=True, exist_ok=True)
    training.recipe_file.write_text(training.recipe.text, encoding="utf-8")
    _share_teacher(training, siblings)

    def keep(glimpse: Glimpse) -> None:
        value = _figure(glimpse.figures)
        if glimpse.step == glimpse.steps:
            _keep(glimpse, value, training.last)
        if not training.peak.exists() or value > float(read_metadata(training.peak)["val"]):
            _keep(glimpse, value, training.peak)

    train(Run(training.recipe_file, backbone, training.folder, None, words=words), report, keep)
    entries = [json.loads(line) for line in (training.folder / "log.jsonl").read_text().splitlines()]
    curve = tuple(
        Point(entry["step"] * training.recipe.pictures // entry["of"], _figure(entry))
        for entry in entries
        if any(name.startswith("val_") for name in entry)
    )
    result = TrainedRate(training.recipe.rate, round(sum(entry["seconds"] for entry in entries), 1), curve)
    write_record(training.done, result)
    (training.folder / "state.safetensors").unlink(missing_ok=True)
    return result


def forget_networks(trainings: tuple[Training, ...]) -> None:
    """Deletes what only the choice among the trainings needed; recipes, logs and curves stay."""
    for training in trainings:
        for path in training.folder.glob("*.safetensors"):
            path.unlink()


def _figure(figures: Mapping[str, float]) -> float:
    """The highest mAP@all of a validation."""
    return max(value for name, value in figures.items() if name.startswith("val_"))


def _keep(glimpse: Glimpse, value: float, path: Path) -> None:
    # That is a copy.
    network = glimpse.network.with_calibration(Calibration(glimpse.methods, glimpse.methods[0]))
    save_checkpoint(network.half(), path, {"val": repr(value), "pictures": str(glimpse.pictures)})


def _share_teacher(training: Training, siblings: tuple[Training, ...]) -> None:
    """Lets a training have what the pretrained ViT said of the photos in another one: it says the same to all."""
    asked = next((s.folder / _TEACHER for s in siblings if (s.folder / _TEACHER).exists()), None)
    if asked is not None:
        # Where files cannot be linked, it is asked again.
        with suppress(OSError):
            os.link(asked, training.folder / _TEACHER)

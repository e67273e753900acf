"""Trainings of all methods, from the first step to the checkpoint."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn

from model.checkpoint import save_checkpoint
from model.datasets import Corpus, subsampled
from model.errors import ModelError
from model.evaluation import counts
from model.network import RetNetwork
from model.papers.pictures import training_corpora
from model.papers.recipe import Recipe
from model.training import Loop, calibrated, validation_figures

Trained = TypeVar("Trained", bound=nn.Module)


@dataclass(frozen=True)
class Run:
    """The options of ``python -m model train``.

    Attributes:
        recipe: its TOML file.
        backbone: pretrained weights to start from, a file or a timm tag; the teacher uses them, too.
        folder: keeps the state of the training; a training found there is continued.
        target: the checkpoint to write.
        data: class folders; None for the data that SKETCH_SEARCH_DATA names.
        start: a checkpoint to start from instead of the backbone; None for the backbone.
        until: the step to stop after; None for the recipe's last.
        words: a file of word vectors, for the recipes that use some; None for the stand-in of the optional data.
    """

    recipe: Path
    backbone: str
    folder: Path
    target: Path
    data: Path | None = None
    start: Path | None = None
    until: int | None = None
    words: Path | None = None

    @property
    def origin(self) -> str:
        """The note of a checkpoint on where it comes from."""
        return f"trained by recipe {self.recipe.name} from {(self.start or Path(self.backbone)).name}"


class Trainer(Loop[Trained]):
    """A training by a recipe; ``origin`` is as for ``Loop``."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, network: Trained, folder: Path, origin: str) -> None:
        super().__init__(network, recipe.pace, folder, origin, dtype=recipe.dtype)

    @property
    @abstractmethod
    def trained(self) -> RetNetwork:
        """The network as it would be saved now: the average over steps."""

    def figures(self, validation: Corpus) -> dict[str, float]:
        """Measures what only this method has, for the log."""
        return {}


def check_target(target: Path, folder: Path | None = None) -> None:
    """Raises ModelError where there is no folder for the checkpoint; ``folder`` is made by the training."""
    if target.parent != folder and not target.parent.is_dir():
        raise ModelError(f"there is no folder {target.parent} to write {target.name} to; make it first")


def run_steps(
    trainer: Trainer[Trained],
    run: Run,
    validation: Corpus | None,
    report: Callable[[str], object],
) -> bool:
    """Makes the steps, and measures the network on the validation classes on the way.

    ``report`` gets sentences about the progress. Returns whether the recipe was completed; if not, the same run
    continues where it stopped.
    """

    recipe = trainer.recipe

    def validate(classes: Corpus) -> Mapping[str, float]:
        share, dtype, methods = recipe.evaluate_share, recipe.dtype, recipe.methods
        return validation_figures(trainer.trained, classes, share, dtype, methods) | trainer.figures(classes)

    trainer.run((lambda: validate(validation)) if validation else None, until=run.until)
    if trainer.step < recipe.steps:
        report(f"stopped at step {trainer.step} of {recipe.steps}; the same command continues from here")
        return False
    return True


def validated_corpora(recipe: Recipe, run: Run, report: Callable[[str], object]) -> tuple[Corpus, Corpus]:
    """Reads the training pictures and the validation pictures, and reports how many there are.

    Raises ModelError for a run that has a start, or no validation classes.
    """
    if run.start is not None:
        raise ModelError(f"{recipe.title} starts from a backbone alone: leave --start out")
    pictures = training_corpora(run.data, recipe)
    if pictures.validation is None:
        raise ModelError(f'a recipe of {recipe.title} is calibrated on the validation classes: leave "val" out')
    training, validation = pictures.training, pictures.validation
    report(
        f"training on {counts(training)}, {recipe.pictures:,} of them in all steps; calibrated on {counts(validation)}"
    )
    return training, validation


def train_and_calibrate(
    trainer: Trainer[Trained],
    run: Run,
    validation: Corpus,
    notes: Mapping[str, str],
    report: Callable[[str], object],
) -> bool:
    """Makes the steps, calibrates the network on the validation classes, and writes the checkpoint with some notes.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    """
    if not run_steps(trainer, run, validation, report):
        return False
    recipe = trainer.recipe
    chosen_on = subsampled(validation, recipe.choose_share, recipe.choose_share)
    ready, figures = calibrated(trainer.trained, chosen_on, recipe.dtype, recipe.methods)
    save_checkpoint(ready.half(), run.target, {"origin": run.origin, **notes, "validation": json.dumps(figures)})
    report(f"wrote {run.target}; mAP@all on validation classes: {figures}")
    return True

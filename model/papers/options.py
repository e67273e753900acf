"""What a training is asked to do, and what it shows of itself meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError
from model.network import Method, RetNetwork


@dataclass(frozen=True)
class Run:
    """The options of ``python -m model train``.

    Attributes:
        recipe: its TOML file.
        backbone: pretrained weights to start from, a file or a timm tag; the teacher uses them, too.
        folder: keeps the state of the training; a training found there is continued.
        target: the checkpoint to write; None for none. The training then ends with its last step: what is chosen or
            made after it, from the calibration to the vocabulary, is left to whoever watches.
        data: class folders; None for the data that SKETCH_SEARCH_DATA names.
        start: a checkpoint to start from instead of the backbone; None for the backbone.
        until: the step to stop after; None for the recipe's last.
        words: a file of word vectors, for the recipes that use some; None for the stand-in of the optional data.
    """

    recipe: Path
    backbone: str
    folder: Path
    target: Path | None
    data: Path | None = None
    start: Path | None = None
    until: int | None = None
    words: Path | None = None


@dataclass(frozen=True)
class Glimpse:
    """A network in training, when it has just been measured on the validation classes.

    Attributes:
        step, steps: how many steps were made, and of how many; equal at the end.
        pictures: how many it has seen, repeats counted.
        network: as it would be saved now: the average over steps. Copy what is to be kept.
        methods: those that are being trained.
        figures: of the validation, as in the log of the training.
    """

    step: int
    steps: int
    pictures: int
    network: RetNetwork
    methods: tuple[Method, ...]
    figures: Mapping[str, float]


Watch = Callable[[Glimpse], object]


def unwatched(glimpse: Glimpse) -> None:
    """Looks away: for a training that nobody watches."""


def check_target(run: Run) -> None:
    """Raises ModelError where there is no folder for the checkpoint, before anything that takes long."""
    if run.target is not None and run.target.parent != run.folder and not run.target.parent.is_dir():
        raise ModelError(f"there is no folder {run.target.parent} to write {run.target.name} to; make it first")

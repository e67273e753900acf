"""What a training is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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

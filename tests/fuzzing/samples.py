"""What the fuzzers edit: a small gallery, its index, and the checkpoint that made it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

import model
from indexer import build
from tests.networks import tiny_checkpoint
from tests.pictures import SHAPES, drawing, photo

_PHOTOS = 7


@dataclass(frozen=True)
class Samples:
    """Where they are.

    Attributes:
        photos: a folder of small pictures, one of which is there twice and one of which is damaged.
        index: of these. weights: its checkpoint. sketch: to search with. checkpoint_sha256: of the weights.
    """

    photos: Path
    index: Path
    weights: Path
    sketch: Path
    checkpoint_sha256: str


def make_samples(folder: Path) -> Samples:
    """Draw and index them in this folder."""
    photos = folder / "photos"
    (photos / "in here").mkdir(parents=True)
    for number in range(_PHOTOS):
        photo(SHAPES[number % len(SHAPES)], 64, number).save(
            photos / ("in here" if number % 2 else "") / f"{number}.png"
        )
    shutil.copy(photos / "0.png", photos / "again.png")
    (photos / "damaged.png").write_bytes((photos / "2.png").read_bytes()[:900])
    drawing(SHAPES[0], 96).save(folder / "sketch.png")
    weights = tiny_checkpoint(folder / "tiny.safetensors")
    matcher = model.load(weights, dtype=torch.float32)
    build([photos], folder / "index", matcher, clusters=3, embedder="ret")
    return Samples(photos, folder / "index", weights, folder / "sketch.png", matcher.checkpoint_sha256)

"""What a training learns from, as pixels in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.corpus import Corpus
from model.errors import ModelError
from model.pixels import pictures_key, prepared_pixels
from model.preprocess import Preprocessing


@dataclass(frozen=True)
class TrainingSet:
    """Training pictures as pixels, with the rows of each class.

    Attributes:
        sketches: (n, 1, 224, 224) uint8; photos: (m, 3, 224, 224) uint8.
        sketch_rows, photo_rows: for each class, its rows in them.
        key: changes with the pictures and their labels.
    """

    sketches: torch.Tensor
    photos: torch.Tensor
    sketch_rows: tuple[torch.Tensor, ...]
    photo_rows: tuple[torch.Tensor, ...]
    key: str

    @property
    def photo_labels(self) -> torch.Tensor:
        """(m,) int64"""
        labels = torch.empty(len(self.photos), dtype=torch.int64)
        for number, rows in enumerate(self.photo_rows):
            labels[rows] = number
        return labels


def training_set(corpus: Corpus, cache: Path) -> TrainingSet:
    """The corpus' pixels; classes that lack sketches or photos are an error, since no step could use them."""
    labels = corpus.labels
    rows = []
    for pictures in (corpus.sketches, corpus.photos):
        found = [torch.tensor([i for i, p in enumerate(pictures) if p.label == label]) for label in labels]
        if any(not len(r) for r in found):
            lacking = labels[[len(r) for r in found].index(0)]
            raise ModelError(f"class {lacking} lacks sketches or photos; every training class needs both")
        rows.append(tuple(found))
    preprocessing = Preprocessing()
    return TrainingSet(
        prepared_pixels(corpus.sketches, "sketch", preprocessing, cache),
        prepared_pixels(corpus.photos, "photo", preprocessing, cache),
        rows[0],
        rows[1],
        pictures_key(corpus.sketches, preprocessing) + pictures_key(corpus.photos, preprocessing),
    )

"""The training pictures as pixels in memory, with their classes and pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.datasets import (
    Corpus,
    data_folder,
    drawn_from,
    hold_out,
    one_data_set,
    pictures_key,
    prepared_pixels,
    read_class_folders,
    read_data,
    read_split,
    split_fresh,
    thin_classes,
)
from model.errors import ModelError
from model.images import Preprocessing
from model.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingSet:
    """Training pictures as pixels, with the rows of each class.

    Attributes:
        sketches: (n, 1, 224, 224) uint8; photos: (m, 3, 224, 224) uint8.
        sketch_rows, photo_rows: for each class, its rows in them.
        pairs: for each class, (photo, rows of the sketches drawn from it) for each photo that has such sketches.
        key: digest that changes with the pictures and their labels.
    """

    sketches: torch.Tensor
    photos: torch.Tensor
    sketch_rows: tuple[torch.Tensor, ...]
    photo_rows: tuple[torch.Tensor, ...]
    pairs: tuple[tuple[tuple[int, torch.Tensor], ...], ...]
    key: str

    @property
    def photo_labels(self) -> torch.Tensor:
        """(m,) int64: the class of each photo."""
        labels = torch.empty(len(self.photos), dtype=torch.int64)
        for number, rows in enumerate(self.photo_rows):
            labels[rows] = number
        return labels


def training_corpora(folder: Path | None, recipe: Recipe) -> tuple[Corpus, Corpus | None]:
    """The training and the validation pictures.

    Args:
        folder: class folders, of which every fifth class is for validation; None for the data that SKETCH_SEARCH_DATA
            names.
        recipe: ``split`` says which parts of that data's split are trained on ("thin" means the classes that the split
            leaves out), ``hold_out`` and ``data_set`` which pictures are left out (``model.datasets.protocols``).
            Classes that then lack sketches or photos are left out, too. Of that data no training sees the fresh
            pictures (``model.datasets.split_fresh``).

    Returns:
        Both corpora; None instead of the second one where the validation classes are trained on.
    """
    if folder is not None:
        corpus = read_class_folders(folder)
        held = corpus.labels[::5]
        return _allowed(corpus.of(set(corpus.labels) - set(held)), recipe), corpus.of(held)
    data = data_folder()
    corpus = read_data(data)
    wanted = {label for part in recipe.split for label in _part(data, corpus, part)}
    training = _allowed(split_fresh(corpus.of(wanted))[0], recipe)
    return training, None if "val" in recipe.split else corpus.of(read_split(data, "val")).protocol()


def _allowed(corpus: Corpus, recipe: Recipe) -> Corpus:
    if recipe.hold_out:
        corpus = hold_out(corpus)[0]
    if recipe.data_set is None:
        return corpus
    corpus = one_data_set(corpus, recipe.data_set)
    return corpus.of({p.label for p in corpus.sketches} & {p.label for p in corpus.photos})


def _part(data: Path, corpus: Corpus, part: str) -> tuple[str, ...]:
    return thin_classes(data, corpus) if part == "thin" else read_split(data, part)


def training_set(corpus: Corpus, cache: Path) -> TrainingSet:
    """The pixels of a corpus. Raises ModelError for a class that lacks sketches or photos: no step could use it."""
    labels = corpus.labels
    rows = []
    for pictures in (corpus.sketches, corpus.photos):
        found = [torch.tensor([i for i, p in enumerate(pictures) if p.label == label]) for label in labels]
        if any(not len(r) for r in found):
            lacking = labels[[len(r) for r in found].index(0)]
            raise ModelError(f"class {lacking} lacks sketches or photos; every training class needs both")
        rows.append(tuple(found))
    preprocessing = Preprocessing()
    targets = torch.from_numpy(drawn_from(corpus))
    return TrainingSet(
        prepared_pixels(corpus.sketches, "sketch", preprocessing, cache),
        prepared_pixels(corpus.photos, "photo", preprocessing, cache),
        rows[0],
        rows[1],
        tuple(_pairs(targets, photos) for photos in rows[1]),
        pictures_key(corpus.sketches, preprocessing) + pictures_key(corpus.photos, preprocessing),
    )


def _pairs(targets: torch.Tensor, photos: torch.Tensor) -> tuple[tuple[int, torch.Tensor], ...]:
    """Those of the photos that a sketch was drawn from, each with the rows of its sketches."""
    found = ((photo, torch.nonzero(targets == photo).flatten()) for photo in photos.tolist())
    return tuple((photo, sketches) for photo, sketches in found if len(sketches))

"""The training pictures as pixels in memory, with their classes and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F

from model.datasets import (
    IMAGENET_PART,
    Corpus,
    Further,
    Picture,
    data_folder,
    drawn_from,
    hold_out,
    lines_of,
    one_data_set,
    pictures_key,
    prepared_pixels,
    read_class_folders,
    read_data,
    read_imagenet,
    read_lines,
    read_more,
    read_split,
    rows_by_class,
    split_fresh,
    thin_classes,
    too_near,
)
from model.errors import ModelError
from model.images import Preprocessing
from model.network import NetworkConfig

# Of class folders each of so many classes is for validation.
VALIDATION_EVERY = 5
FEWEST_CLASSES = 2


class Selection(Protocol):
    """What is read of a recipe to choose its pictures; ``model.papers.recipe`` explains each."""

    @property
    def split(self) -> tuple[str, ...]: ...
    @property
    def hold_out(self) -> bool: ...
    @property
    def data_set(self) -> str | None: ...
    @property
    def further_sketches(self) -> bool: ...
    @property
    def line_drawings(self) -> bool: ...


@dataclass(frozen=True)
class TrainingSet:
    """Training pictures as pixels, with the rows of each class.

    Attributes:
        sketches: (n, 1, 224, 224) uint8; photos: (m, 3, 224, 224) uint8. Those of classes with both come first.
        sketch_rows, photo_rows: for each class that has both, its rows in them.
        drawn_from: (n,) int64, the row of the photo that each sketch was drawn from; -1 for none.
        pairs: for each of these classes, (photo, rows of the sketches drawn from it) for each photo that has such
            sketches.
        lines: (l, 1, 224, 224) uint8, line drawings of photos; line_photos: (l,) int64, the rows of these photos.
        further: the names of the classes without photos; further_rows: for each, its rows in ``sketches``.
        key: digest that changes with the pictures and their labels.
    """

    sketches: torch.Tensor
    photos: torch.Tensor
    sketch_rows: tuple[torch.Tensor, ...]
    photo_rows: tuple[torch.Tensor, ...]
    drawn_from: torch.Tensor
    pairs: tuple[tuple[tuple[int, torch.Tensor], ...], ...]
    lines: torch.Tensor
    line_photos: torch.Tensor
    further: tuple[str, ...]
    further_rows: tuple[torch.Tensor, ...]
    key: str

    @property
    def photo_labels(self) -> torch.Tensor:
        """(m,) int64: the class of each photo, -1 for one whose class has no sketches."""
        labels = torch.full((len(self.photos),), -1, dtype=torch.int64)
        for number, rows in enumerate(self.photo_rows):
            labels[rows] = number
        return labels


@dataclass(frozen=True)
class TrainingCorpora:
    """The pictures of a training.

    Attributes:
        training: of the classes that have sketches and photos.
        further: what else it uses.
        validation: None where the validation classes are trained on.
        fresh: sketches of the classes that are trained on, which the training does not see; none of class folders.
    """

    training: Corpus
    further: Further
    validation: Corpus | None
    fresh: tuple[Picture, ...] = ()


def training_corpora(folder: Path | None, recipe: Selection) -> TrainingCorpora:
    """The training and the validation pictures.

    Args:
        folder: class folders, of which every fifth class is for validation, unless ``recipe.split`` has "val", too;
            None for the data that SKETCH_SEARCH_DATA names.
        recipe: ``split`` says which parts of that data's split are trained on ("thin" means the classes that the split
            leaves out), ``hold_out`` and ``data_set`` which pictures are left out (``model.datasets.protocols``).
            Classes that then lack sketches or photos are used where the recipe wants ``further_sketches`` or
            ``line_drawings``, or not at all. Of that data no training sees the fresh pictures
            (``model.datasets.split_fresh``), nor, with parts of data/more, classes that are too near to those it is
            measured on (``model.datasets.too_near``).

    Raises ModelError where data is missing.
    """
    if folder is not None:
        return _of_folders(folder, recipe)
    data = data_folder()
    first = read_data(data)
    wanted = {label for part in recipe.split for label in _part(data, first, part)}
    everything = first
    if {"more", "ship", IMAGENET_PART} & set(recipe.split):
        more = read_more(data)
        everything = Corpus(first.sketches + more.sketches, first.photos + more.photos)
        wanted -= too_near(data, recipe.split)
    seen, fresh = split_fresh(everything.of(wanted))
    allowed = _allowed(seen, recipe)
    training = allowed.of({p.label for p in allowed.sketches} & {p.label for p in allowed.photos})
    validation = None if "val" in recipe.split else first.of(read_split(data, "val")).protocol()
    return TrainingCorpora(training, _further(data, allowed, training, recipe), validation, fresh.sketches)


def _of_folders(folder: Path, recipe: Selection) -> TrainingCorpora:
    corpus = read_class_folders(folder)
    held = () if "val" in recipe.split else corpus.labels[::VALIDATION_EVERY]
    trained = [label for label in corpus.labels if label not in held]
    if len(trained) < FEWEST_CLASSES:
        raise ModelError(
            f"{folder} has too few classes to train on ({', '.join(trained) or 'none'}), beside {len(held)} for "
            f"validation; at least {FEWEST_CLASSES} are needed, because a network learns by telling them apart: "
            'add class folders, or name a recipe that trains on all of them (split = ["train", "val"])'
        )
    return TrainingCorpora(_allowed(corpus.of(trained), recipe), Further(), corpus.of(held) if held else None)


def _allowed(corpus: Corpus, recipe: Selection) -> Corpus:
    if recipe.hold_out:
        corpus = hold_out(corpus)[0]
    return corpus if recipe.data_set is None else one_data_set(corpus, recipe.data_set)


def _part(data: Path, corpus: Corpus, part: str) -> tuple[str, ...]:
    if part == IMAGENET_PART:
        return ()
    return thin_classes(data, corpus) if part == "thin" else read_split(data, part)


def _further(data: Path, allowed: Corpus, training: Corpus, recipe: Selection) -> Further:
    """What the recipe uses of the pictures beside those of its classes with sketches and photos."""
    trained = set(training.labels)
    sketches = tuple(p for p in allowed.sketches if p.label not in trained) if recipe.further_sketches else ()
    if not recipe.line_drawings:
        return Further(sketches)
    photos = tuple(p for p in allowed.photos if p.label not in trained)
    if IMAGENET_PART in recipe.split:
        photos += split_fresh(read_imagenet(data))[0].photos
    return Further(sketches, photos, lines_of(read_lines(data), training.photos + photos)[0])


def training_set(corpus: Corpus, cache: Path, further: Further | None = None) -> TrainingSet:
    """The pixels of a corpus, and of further pictures.

    Raises ModelError for a class of the corpus that lacks sketches or photos: no step could use it.
    """
    further = further or Further()
    labels = corpus.labels
    rows = []
    for what, pictures in (("sketches", corpus.sketches), ("photos", corpus.photos)):
        found = [torch.tensor([i for i, p in enumerate(pictures) if p.label == label]) for label in labels]
        if lacking := [label for label, r in zip(labels, found, strict=True) if not len(r)]:
            raise ModelError(
                f"there are no {what} of {', '.join(lacking)}; every class that is trained on needs sketches and "
                "photos, in folders of the same name"
            )
        rows.append(tuple(found))
    preprocessing = Preprocessing()
    targets = torch.from_numpy(drawn_from(corpus))
    sketches, photos = corpus.sketches + further.sketches, corpus.photos + further.photos
    lines, line_photos = lines_of(further.lines, photos)
    names, further_rows = _by_class(further.sketches, len(corpus.sketches))
    return TrainingSet(
        sketches=prepared_pixels(sketches, "sketch", preprocessing, cache),
        photos=prepared_pixels(photos, "photo", preprocessing, cache),
        sketch_rows=rows[0],
        photo_rows=rows[1],
        drawn_from=torch.cat([targets, torch.full((len(further.sketches),), -1)]),
        pairs=tuple(_pairs(targets, photos) for photos in rows[1]),
        lines=prepared_pixels(lines, "photo", preprocessing, cache, grey=True),
        line_photos=torch.tensor(line_photos, dtype=torch.int64),
        further=names,
        further_rows=further_rows,
        key="".join(pictures_key(pictures, preprocessing) for pictures in (sketches, photos, lines)),
    )


def sized(pictures: torch.Tensor, config: NetworkConfig) -> torch.Tensor:
    """(b, c, H, W) float32 in [0, 1] -> (b, 3, side, side) normalised, as a network with this configuration has it."""
    side = config.image_size
    if pictures.shape[-1] != side:
        pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
    return (pictures.expand(-1, 3, -1, -1) - mean) / std


def _by_class(pictures: Sequence[Picture], first: int) -> tuple[tuple[str, ...], tuple[torch.Tensor, ...]]:
    """The classes of these pictures, and for each its rows, counted from ``first``."""
    rows = rows_by_class(pictures)
    return tuple(rows), tuple(first + torch.tensor(found) for found in rows.values())


def _pairs(targets: torch.Tensor, photos: torch.Tensor) -> tuple[tuple[int, torch.Tensor], ...]:
    """Those of the photos that a sketch was drawn from, each with the rows of its sketches."""
    found = ((photo, torch.nonzero(targets == photo).flatten()) for photo in photos.tolist())
    return tuple((photo, sketches) for photo, sketches in found if len(sketches))


def check_classes(data: TrainingSet) -> None:
    """Raises ModelError where the pictures are of one class only."""
    classes = len(data.photo_rows)
    if classes < FEWEST_CLASSES:
        raise ModelError(
            f"the training pictures are of {classes} class only; at least {FEWEST_CLASSES} are needed, because the "
            "losses push different classes apart: add class folders"
        )

"""Pictures of classes that lack sketches or photos: they widen a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.datasets.corpus import Corpus, Picture, cache_folder, read_class_folders, unpacked
from model.errors import ModelError

# Photos of ImageNet's classes, for their looks alone: their classes are not those of the data.
IMAGENET_PART = "imagenet1k"
# Classes of the part "more" that no photo shows.
_WITHOUT_PHOTOS = "abstract"
# For each part that a training may leave out, the flag of classes that are too near to it.
_NEAR = {"val": "near_val", "ship": "near_unseen"}


@dataclass(frozen=True)
class Further:
    """What a training uses beside its classes with sketches and photos.

    Attributes:
        sketches: of classes without photos.
        photos: of classes without sketches.
    """

    sketches: tuple[Picture, ...] = ()
    photos: tuple[Picture, ...] = ()


def read_imagenet(folder: Path) -> Corpus:
    """The photos of IMAGENET_PART in ``folder``/data/more; their class is their folder, "<index>_<name>"."""
    root = _unpacked(folder, IMAGENET_PART)
    return read_class_folders(root / IMAGENET_PART, IMAGENET_PART)


def too_near(folder: Path, parts: Sequence[str]) -> frozenset[str]:
    """Classes that a training on these parts of the split leaves out, by the flags of data/more/split.json.

    A training without "val" leaves out what is near the validation classes, and one without "ship" what is near the
    unseen ones: figures on those would not be zero-shot. Abstract figures, such as "zigzag", are always left out.
    """
    path = folder / "data" / "more" / "split.json"
    try:
        flags = json.loads(path.read_text())["flags"]
        wanted = [_WITHOUT_PHOTOS, *(flag for part, flag in _NEAR.items() if part not in parts)]
        return frozenset(label for flag in wanted for label in flags[flag])
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no flags of classes ({error})") from error


def _unpacked(folder: Path, name: str) -> Path:
    archive = folder / "data" / "more" / f"{name}.tar.gz"
    if not archive.is_file():
        raise ModelError(f"there is no {archive}; this training needs it")
    return unpacked(archive, cache_folder() / "images")

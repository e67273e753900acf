"""Ordinary photos: whole scenes with boxes around what they show. They are for measuring, never for training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from model.datasets.corpus import Picture, cache_folder, unpacked
from model.errors import ModelError

ARCHIVE = Path("data") / "more" / "everyday.tar.gz"
SOURCE = "voc2007"
# PASCAL VOC's words, and the classes of things that are drawn. Nobody draws a dining table for its own sake.
CLASSES = {
    "aeroplane": "airplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "boat": "sailboat",
    "bottle": "wine_bottle",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair",
    "cow": "cow",
    "dog": "dog",
    "horse": "horse",
    "motorbike": "motorcycle",
    "person": "person",
    "pottedplant": "potted_plant",
    "sheep": "sheep",
    "sofa": "couch",
    "train": "train",
    "tvmonitor": "television",
}


@dataclass(frozen=True)
class Scene:
    """One ordinary photo.

    Attributes:
        picture: its file; ``label`` is the class of the largest box, "" where none counts, ``also`` the other classes.
        shares: for each class that counts, the share of the photo that its largest box covers, in (0, 1].
    """

    picture: Picture
    shares: dict[str, float]


def read_scenes(folder: Path) -> tuple[Scene, ...]:
    """The ordinary photos of the optional data, sorted by file name. Boxes marked difficult do not count.

    Raises ModelError where they are missing or not laid out as expected.
    """
    archive = folder / ARCHIVE
    if not archive.is_file():
        raise ModelError(f"there are no ordinary photos at {archive}; this protocol needs them")
    photos = unpacked(archive, cache_folder() / "images") / SOURCE
    try:
        boxes = json.loads((photos / "labels.json").read_text())
        return tuple(_scene(photos / name, boxes[name]) for name in sorted(boxes))
    except (OSError, json.JSONDecodeError, TypeError, ValueError) as error:
        raise ModelError(f"{photos / 'labels.json'} cannot be read ({error}); unpack the data anew") from error


def _scene(path: Path, boxes: list[tuple[str, bool, float, float, float, float]]) -> Scene:
    shares: dict[str, float] = {}
    for word, difficult, left, top, right, bottom in boxes:
        label = CLASSES.get(word)
        if label is not None and not difficult:
            shares[label] = max(shares.get(label, 0.0), (right - left) * (bottom - top))
    label, *others = sorted(shares, key=lambda name: (-shares[name], name)) or [""]
    return Scene(Picture(path, label, SOURCE, tuple(others)), shares)

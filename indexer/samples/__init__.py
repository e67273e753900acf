"""A sample gallery: pictures of everyday things to search in, and sketches to search with.

Drawn by this package, with two photos that scikit-learn brings along where it is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from indexer.errors import BadInvocation
from indexer.samples.nature import NATURE
from indexer.samples.objects import OBJECTS
from indexer.samples.scene import STYLES, paint, sketch

THINGS = dict(sorted({**NATURE, **OBJECTS}.items()))
SKETCHED = (
    "apple",
    "bicycle",
    "butterfly",
    "car",
    "cat",
    "cup",
    "fish",
    "guitar",
    "house",
    "mushroom",
    "sailboat",
    "umbrella",
)


@dataclass(frozen=True)
class Samples:
    """What was written: the folders, how many pictures were drawn of how many things, photos copied, sketches."""

    photos: Path
    sketches: Path
    drawn: int
    things: int
    copied: int
    sketched: int


def write_samples(folder: Path) -> Samples:
    """Write ``folder/photos`` and ``folder/sketches``, the same bytes every time with one version of Pillow.

    Raises:
        BadInvocation: one of the two is there already, or the disk refuses.
    """
    photos, sketches = folder / "photos", folder / "sketches"
    for target in (photos, sketches):
        if target.exists():
            raise BadInvocation(f"{target} is there already; name another folder, or delete it.")
    working = folder / ".samples-partial"
    try:
        shutil.rmtree(working, ignore_errors=True)
        drawn = _write_photos(working / "photos")
        copied = _copy_photos(working / "photos")
        _write_sketches(working / "sketches")
        # Whole folders appear at once, so that one that is there is complete.
        os.replace(working / "sketches", sketches)
        os.replace(working / "photos", photos)
        working.rmdir()
    except OSError as error:
        raise BadInvocation(f"{folder} cannot be written: {error.strerror}; name another folder.") from error
    return Samples(photos, sketches, drawn, len(THINGS), copied, len(SKETCHED))


def _write_photos(folder: Path) -> int:
    count = 0
    for name, draw in THINGS.items():
        (folder / name).mkdir(parents=True)
        for number, style in enumerate(STYLES, start=1):
            chance = Random(f"{name} {number}")
            picture = paint(draw(chance), style, chance)
            picture.save(folder / name / f"{name} {number}.jpg", quality=90)
            count += 1
    return count


def _write_sketches(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in SKETCHED:
        chance = Random(f"{name} as a sketch")
        sketch(THINGS[name](chance), chance).save(folder / f"{name}.png")


def _copy_photos(folder: Path) -> int:
    """The photos that scikit-learn comes with; it is looked up, not imported, which would take a second."""
    spec = importlib.util.find_spec("sklearn")
    found = (
        [] if spec is None or spec.origin is None else sorted((Path(spec.origin).parent).glob("datasets/images/*.jpg"))
    )
    for source in found:
        target = folder / "scikit-learn"
        target.mkdir(exist_ok=True)
        shutil.copyfile(source, target / source.name)
    return len(found)

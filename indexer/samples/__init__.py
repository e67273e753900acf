"""Draws a sample gallery and sketches, and adds the sample photos of scikit-learn and scikit-image if installed."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.samples.painting import STYLES, THINGS, draw, paint, sketch

# The number of pictures of each thing: one in each style.
EACH = len(STYLES)
# Photos included in packages, by the name of the package: its module, the folder, and the files in it.
_BORROWED = {
    "scikit-learn": ("sklearn", "datasets/images", "china.jpg flower.jpg"),
    "scikit-image": (
        "skimage",
        "data",
        "astronaut.png camera.png chelsea.png coffee.png coins.png moon.png motorcycle_left.png rocket.jpg",
    ),
}
# Pictures of two things, the first on the left.
SCENES = tuple(
    pair
    for one, other in (("bicycle", "tree"), ("car", "house"), ("cat", "umbrella"), ("mushroom", "butterfly"))
    for pair in ((one, other), (other, one))
)
SKETCHED = tuple(name for name in THINGS if name not in ("duck", "flower", "star", "tree"))


@dataclass(frozen=True)
class Samples:
    """The folders that were written, and how many photos came from other packages."""

    photos: Path
    sketches: Path
    copied: int


def write_samples(folder: Path) -> Samples:
    """Writes ``folder/photos`` and ``folder/sketches``, always the same. Raises BadInvocation if one exists."""
    photos, sketches = folder / "photos", folder / "sketches"
    for target in (photos, sketches):
        if target.exists():
            raise BadInvocation(f"{target} already exists; name another folder, or delete it.")
    working = folder / ".samples-partial"
    try:
        shutil.rmtree(working, ignore_errors=True)
        for name in THINGS:
            (working / "photos" / name).mkdir(parents=True)
            for number in range(1, EACH + 1):
                draw_photo(name, number).save(working / "photos" / name / f"{name} {number}.jpg", quality=90)
        (working / "photos" / "scenes").mkdir()
        for left, right in SCENES:
            for number in range(1, EACH + 1):
                file = working / "photos" / "scenes" / f"{left} and {right} {number}.jpg"
                draw_photo(f"{left} {right}", number).save(file, quality=90)
        (working / "sketches").mkdir()
        for name in SKETCHED:
            draw_sketch(name).save(working / "sketches" / f"{name}.png")
        copied = _copy_photos(working / "photos")
        # A folder appears only when it is complete.
        os.replace(working / "photos", photos)
        os.replace(working / "sketches", sketches)
        working.rmdir()
    except OSError as error:
        raise BadInvocation(f"{folder} cannot be written: {error.strerror}; name another folder.") from error
    return Samples(photos, sketches, copied)


def draw_sketch(name: str) -> Image.Image:
    """Draws the sketch of one of THINGS, RGB, black on white. It is always the same."""
    chance = Random(f"{name} as a sketch")
    return sketch(draw(THINGS[name], chance), chance)


def draw_photo(names: str, number: int) -> Image.Image:
    """Paints a picture, RGB, of THINGS named from the left with spaces between. The same number, from 1, repeats it."""
    chance = Random(f"{names} {number}")
    things = [draw(THINGS[name], chance) for name in names.split()]
    return paint(things, STYLES[(number - 1) % len(STYLES)], chance)


def _copy_photos(folder: Path) -> int:
    """Copies the photos included in other packages, without importing these, which would take a second."""
    copied = 0
    for package, (name, inside, photos) in _BORROWED.items():
        spec = importlib.util.find_spec(name)
        places = spec.submodule_search_locations or () if spec is not None else ()
        for source in (Path(place, inside, photo) for place in places for photo in photos.split()):
            if source.is_file():
                (folder / package).mkdir(exist_ok=True)
                shutil.copyfile(source, folder / package / source.name)
                copied += 1
    return copied

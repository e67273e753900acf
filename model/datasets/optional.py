"""Parts of the optional data: further classes, and ordinary photos with boxes."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from model.datasets.corpus import Corpus, Picture, in_class_folders, read_class_folders, unpacked
from model.errors import ModelError

# Photos of ImageNet's classes, for their looks alone: their classes are not those of the data.
IMAGENET_PART = "imagenet1k"
# Classes of the part "more" that no photo shows.
_WITHOUT_PHOTOS = "abstract"
# For each part that a training may leave out, the flag of classes that are too near to it.
_NEAR = {"val": "near_val", "ship": "near_unseen"}


def read_imagenet(folder: Path) -> Corpus:
    """The photos of IMAGENET_PART in ``folder``/data/more; their class is their folder, "<index>_<name>"."""
    root = unpacked(folder / "data" / "more" / f"{IMAGENET_PART}.tar.gz")
    return read_class_folders(root / IMAGENET_PART, IMAGENET_PART)


def read_drawings(folder: Path) -> Corpus:
    """The sketches in ``folder``/data/more2: those of people.tar.gz, and those of strokes.tar.gz, which are drawn once.

    Empty without that folder.
    """
    sketches: list[Picture] = []
    people, strokes = (folder / "data" / "more2" / f"{name}.tar.gz" for name in ("people", "strokes"))
    if people.is_file():
        root = unpacked(people)
        for child in sorted(path for path in root.iterdir() if path.is_dir()):
            sketches += in_class_folders(child / "sketch", child.name)
    if strokes.is_file():
        drawn = _drawn(unpacked(strokes))
        sketches += in_class_folders(drawn, "strokes")
    return Corpus(tuple(sketches), ())


def _drawn(root: Path) -> Path:
    """The folder <class>/*.png of the strokes in ``root``, which are drawn at the first call."""
    target = root / "drawn"
    if target.exists():
        return target
    partial = Path(tempfile.mkdtemp(prefix="drawn", suffix=".partial", dir=root))
    for packed in sorted((root / "strokes").glob("*.jsonl.gz")):
        folder = partial / packed.name.removesuffix(".jsonl.gz")
        folder.mkdir()
        with gzip.open(packed, "rt") as lines:
            for number, line in enumerate(lines):
                # Four widths by turns: sketches come with thin and with thick lines.
                _drawing(json.loads(line), 4 + 2 * (number % 4)).save(folder / f"{number:04}.png")
    try:
        partial.rename(target)
    except OSError:
        # Another process has drawn them meanwhile.
        shutil.rmtree(partial)
    return target


def _drawing(strokes: Sequence[tuple[Sequence[int], Sequence[int]]], width: int) -> Image.Image:
    """Strokes, each (x, ...) and (y, ...) in 0 to 255, as black lines with round ends on white, 512 x 512."""
    image = Image.new("L", (512, 512), 255)
    draw = ImageDraw.Draw(image)
    for xs, ys in strokes:
        points = [(40 + x * 1.69, 40 + y * 1.69) for x, y in zip(xs, ys, strict=True)]
        draw.line(points, fill=0, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=0)
    return image


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


ARCHIVE = Path("data") / "more" / "everyday.tar.gz"
SOURCE = "voc2007"
# PASCAL VOC's words, and the classes of things that are drawn. Nobody draws a dining table for its own sake.
_SAME = ("bicycle", "bird", "bus", "car", "cat", "chair", "cow", "dog", "horse", "person", "sheep", "train")
CLASSES = {
    **dict(zip(_SAME, _SAME, strict=True)),
    "aeroplane": "airplane",
    "boat": "sailboat",
    "bottle": "wine_bottle",
    "motorbike": "motorcycle",
    "pottedplant": "potted_plant",
    "sofa": "couch",
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
    photos = unpacked(folder / ARCHIVE) / SOURCE
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

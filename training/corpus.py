"""Reads labelled sketches and photos, with fresh ones and pairs of a sketch and its photo, and ordinary photos."""

import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors.numpy import load_file

from sketch_search.model.errors import ModelError
from sketch_search.model.images import IMAGE_SUFFIXES
from sketch_search.training.people import draw_person

DATA_VARIABLE = "SKETCH_SEARCH_DATA"
# An archive without labels.
UNLABELLED = "realphotos.tar.gz"
# Archives of data/more laid out as those of data are: <set>/{sketch,photo}/<class>/*.
FURTHER_ARCHIVES = ("ship", "sketches")
QUERIES_PER_CLASS = 10
# Classes of the unseen split that neither are nor contain a class of ImageNet-1k, on which networks are pretrained.
WITHOUT_NAMESAKE = ("bat", "brain", "cabin", "pear", "rollerblades", "saw", "skyscraper", "sword", "tree")
Label = TypeVar("Label", bound=Hashable)
#: A drawing's strokes in the order in which they were drawn, each (n, 2).
Strokes: TypeAlias = list[NDArray[np.float64]]


@dataclass(frozen=True)
class Picture:
    """A labelled file. source: the set it comes from. also: further classes that a photo shows."""

    path: Path
    label: str
    source: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Sketches and photos, each sorted by source, class and file name."""

    sketches: tuple[Picture, ...] = ()
    photos: tuple[Picture, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({picture.label for picture in (*self.sketches, *self.photos)}))

    @property
    def shared(self) -> set[str]:
        """The classes that have both sketches and photos."""
        return {sketch.label for sketch in self.sketches} & {photo.label for photo in self.photos}

    def of(self, labels: Collection[str]) -> "Corpus":
        """Returns only the pictures of these classes."""
        chosen = frozenset(labels)
        return self.kept(lambda picture: picture.label in chosen)

    def kept(self, sketch: Callable[[Picture], bool], photo: Callable[[Picture], bool] | None = None) -> "Corpus":
        """Keeps only the sketches and the photos of which this is true. photo: None for the same as of sketches."""
        return Corpus(tuple(filter(sketch, self.sketches)), tuple(filter(photo or sketch, self.photos)))

    def subsample(self, sketches: int, photos: int) -> "Corpus":
        """Takes every ``sketches``-th sketch and every ``photos``-th photo, for quick forms of the protocols."""
        return Corpus(self.sketches[::sketches], self.photos[::photos])

    def protocol(self) -> "Corpus":
        """Chooses the first ten sketches by file name of each class and source, and all photos."""
        rows = rows_by_label((picture.source, picture.label) for picture in self.sketches).values()
        chosen = sorted(row for of_class in rows for row in of_class[:QUERIES_PER_CLASS])
        return Corpus(tuple(self.sketches[row] for row in chosen), self.photos)


def rows_by_label(labels: Iterable[Label]) -> dict[Label, list[int]]:
    """Finds the places of each label, in the order in which labels first occur."""
    rows: dict[Label, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows


def read_class_folders(folder: str | Path, source: str = "") -> Corpus:
    """Reads ``folder/sketch/<class>/*`` and ``folder/photo/<class>/*``.

    Raises ModelError if both are missing, or for files that each hold many drawings.
    """
    halves = {half: Path(folder) / half for half in ("sketch", "photo")}
    if not any(path.is_dir() for path in halves.values()):
        raise ModelError(f"{folder} holds neither sketch/<class>/ nor photo/<class>/ folders")
    return Corpus(*(_class_folders(path, source) for path in halves.values()))


def data_folder() -> Path:
    """Returns the folder that SKETCH_SEARCH_DATA names. Raises ModelError if it does not exist."""
    value = os.environ.get(DATA_VARIABLE)
    if not value or not (Path(value) / "data").is_dir():
        raise ModelError(
            f"set {DATA_VARIABLE} to the folder that holds data/ (archives of class folders and split.json), "
            "or name a folder of sketch/<class>/ and photo/<class>/ with --data"
        )
    return Path(value)


def read_data(folder: Path) -> Corpus:
    """Reads all labelled sets among the archives in ``folder``/data, which are unpacked once, to the user's cache."""
    return read_archives(archive for archive in (folder / "data").glob("*.tar.gz") if archive.name != UNLABELLED)


def read_archives(archives: Iterable[Path]) -> Corpus:
    """Reads the labelled sets in archives, which are unpacked once, to the user's cache."""
    names = {(root, child) for root in map(unpack, archives) for child in _children(root)}
    parts = [read_class_folders(root / child, child) for root, child in sorted(names)]
    halves = [p for c in parts for p in c.sketches], [p for c in parts for p in c.photos]
    return Corpus(*(tuple(sorted(half, key=lambda p: (p.source, p.label, p.path.name))) for half in halves))


def read_more(folder: Path) -> Corpus:
    """Reads the labelled pictures of FURTHER_ARCHIVES in ``folder``/data/more. Empty without archives."""
    archives = [folder / "data" / "more" / f"{name}.tar.gz" for name in FURTHER_ARCHIVES]
    return read_archives(archive for archive in archives if archive.is_file())


def read_clip_vectors(folder: Path, photos: Sequence[Picture]) -> dict[Picture, NDArray[np.float32]]:
    """Reads CLIP's vectors, (512,), of those of ``photos`` that ``folder``/data/more3 has: some of Caltech-101."""
    file = folder / "data" / "more3" / "clip_caltech101.safetensors"
    if not file.is_file():
        raise ModelError(f"there is no {file}; the optional data has it, and this needs it")
    names = gzip.decompress(file.with_suffix(".txt.gz").read_bytes()).decode().splitlines()
    rows = {line.partition("\t")[0].replace("/", "_"): row for row, line in enumerate(names)}
    vectors = load_file(file)["clip_vitb32_image"].astype(np.float32)
    known = (photo for photo in photos if photo.source == "caltech101" and photo.path.name in rows)
    return {photo: vectors[rows[photo.path.name]] for photo in known}


def read_split(folder: Path, name: str) -> tuple[str, ...]:
    """Reads the classes of one part: "train", "val" or "unseen"; or "more" or "ship", from data/more/split.json."""
    return _read_list(folder / "data" / ("more" if name in ("more", "ship") else "") / "split.json", name)


def _read_list(path: Path, *keys: str) -> tuple[str, ...]:
    try:
        content = json.loads(path.read_text())
        for key in keys:
            content = content[key]
        return tuple(content)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no list of classes named {'.'.join(keys)!r} ({error})") from error


def classes_of(folder: Path, parts: Sequence[str], corpus: Corpus) -> set[str]:
    """Reads the classes of parts of the split. "thin" has those with sketches and photos that split.json omits."""
    without = {"thin", IMAGENET_PART, DRAWINGS_PART, PACS_PART}
    classes = {label for part in parts if part not in without for label in read_split(folder, part)}
    if "thin" in parts:
        classes |= corpus.shared - {label for part in ("train", "val", "unseen") for label in read_split(folder, part)}
    return classes


def read_protocol(part: str) -> Corpus:
    """Reads queries and gallery of a part ("train", "val" or "unseen") of the data that SKETCH_SEARCH_DATA names."""
    folder = data_folder()
    return read_data(folder).of(read_split(folder, part)).protocol()


def cache_folder() -> Path:
    """Returns the folder that keeps unpacked archives and prepared pixels between runs."""
    return platformdirs.user_cache_path("sketch-search")


def unpack(archive: Path) -> Path:
    """Returns the folder with the files of a .tar.gz, unpacked once. Raises ModelError if it does not exist."""
    if not archive.is_file():
        raise ModelError(f"there is no {archive}; the optional data has it, and this needs it")
    cache = cache_folder() / "images"
    target = cache / f"{archive.name.removesuffix('.tar.gz')}-{archive.stat().st_size}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _new_folder(target) as partial, tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
    return target


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yields a folder beside ``target`` that replaces it at the end."""
    partial = Path(tempfile.mkdtemp(prefix=target.name, suffix=".partial", dir=target.parent))
    try:
        yield partial
        partial.rename(target)
    except OSError:
        # A folder cannot be renamed to one that holds files: another process has made it meanwhile.
        if not target.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _children(folder: Path) -> list[str]:
    return sorted(c.name for c in folder.iterdir() if c.is_dir() and not c.name.startswith("."))


# What `open_image` reads as a sketch and not as a photo; and Quick Draw's files.
_DRAWN = {".svg", ".svgz"}
_OF_MANY = {".npy", ".npz", ".ndjson"}
# The Sketchy Database has a folder for each augmentation of its pictures; the first has none.
_AUGMENTED = re.compile(r"tx_\d+")


def _class_folders(folder: Path, source: str) -> tuple[Picture, ...]:
    """Lists the pictures in ``folder``/<class>/*, sorted by class and file name; none if the folder does not exist."""
    labels = _children(folder) if folder.is_dir() else []
    if labels and all(map(_AUGMENTED.fullmatch, labels)):
        return _class_folders(folder / labels[0], source)
    suffixes = IMAGE_SUFFIXES | (_DRAWN if "sketch" in (folder.name, folder.parent.name) else set())
    found = [(path, label) for label in labels for path in sorted((folder / label).iterdir())]
    for path in (*(folder.iterdir() if folder.is_dir() else ()), *(path for path, _ in found)):
        if path.suffix.lower() in _OF_MANY:
            raise ModelError(f"{path} holds many drawings; write each as a picture, such as {folder.name}/cat/1.png")
    return tuple(
        Picture(path, label, source)
        for path, label in found
        # Reading a pipe would wait forever.
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


# A sketch is named after its photo and numbered: NAME-3.png in Sketchy, NAME_3.png in QMUL's sets.
_OF_PHOTO = re.compile(r"(.+)[-_]\d+")


def find_drawn_photos(corpus: Corpus) -> NDArray[np.int64]:
    """Finds the photo of the same class and source that each sketch is named after, or -1: (sketches,) int64."""
    photos = {(p.source, p.label, p.path.stem): number for number, p in enumerate(corpus.photos)}
    named = [(p, _OF_PHOTO.fullmatch(p.path.stem)) for p in corpus.sketches]
    return np.array([photos.get((p.source, p.label, name[1]), -1) if name else -1 for p, name in named], np.int64)


def with_pairs(corpus: Corpus) -> Corpus:
    """Keeps only the sketches that were drawn from one of the photos, and all photos. Raises ModelError without any."""
    sketches = tuple(corpus.sketches[row] for row in np.flatnonzero(find_drawn_photos(corpus) >= 0))
    if not sketches:
        problem = "no sketch is named after a photo of its class (sketch NAME-1.png or NAME_1.png of photo NAME.jpg)"
        raise ModelError(f"{problem}, so there is nothing fine-grained to measure")
    return Corpus(sketches, corpus.photos)


# The shares of a class that are fresh; that of sketches must not be larger than that of photos: see `split_fresh`.
FRESH_SKETCHES, FRESH_PHOTOS = 0.1, 0.2


def split_fresh(corpus: Corpus) -> tuple[Corpus, Corpus]:
    """Splits off the fresh pictures, by a hash of class and name, of a sketch's photo if it has one."""
    fresh = {photo for photo in corpus.photos if is_fresh(photo.label, photo.path.stem, FRESH_PHOTOS)}
    for sketch, target in zip(corpus.sketches, find_drawn_photos(corpus).tolist(), strict=True):
        source = corpus.photos[target] if target >= 0 else sketch
        if is_fresh(sketch.label, source.path.stem, FRESH_SKETCHES):
            fresh.add(sketch)
    return corpus.kept(lambda picture: picture not in fresh), corpus.kept(lambda picture: picture in fresh)


def read_both(folder: Path) -> Corpus:
    """Reads the labelled pictures of ``folder``/data and of data/more."""
    first, more = read_data(folder), read_more(folder)
    return Corpus(first.sketches + more.sketches, first.photos + more.photos)


def stale_sketches(folder: Path, labels: Collection[str]) -> tuple[Picture, ...]:
    """Reads the sketches of these classes that are not fresh, on which networks may have been trained."""
    data = read_both(folder)
    return split_fresh(Corpus(data.sketches + read_drawings(folder), data.photos).of(labels))[0].sketches


def is_fresh(label: str, name: str, share: float) -> bool:
    """True if the picture ``name`` (without suffix) of class ``label`` is among the first ``share`` by its hash."""
    digest = hashlib.sha256(f"fresh/{label}/{name.lower()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


# The part with photos of ImageNet's classes. Only their looks are used: their classes are not those of the data.
IMAGENET_PART = "imagenet1k"
# The parts with line drawings of many kinds, a few of each, and with sketches of animals, people, houses and guitars.
DRAWINGS_PART, PACS_PART = "drawings", "pacs"
# The flag of those classes of the part "more" that no photo shows.
_WITHOUT_PHOTOS = "abstract"
# The flag of classes that are too near to a part, for each part that a training may leave out.
_NEAR = {"val": "near_val", "ship": "near_unseen"}


def read_imagenet(folder: Path) -> Corpus:
    """Reads the photos of IMAGENET_PART in ``folder``/data/more; their class is their folder, "<index>_<name>"."""
    return read_archives([folder / "data" / "more" / f"{IMAGENET_PART}.tar.gz"])


def read_pacs(folder: Path) -> tuple[Picture, ...]:
    """Reads the sketches of PACS_PART in ``folder``/data/more3."""
    return read_archives([folder / "data" / "more3" / "pacs_sketches.tar.gz"]).sketches


def read_drawings(folder: Path) -> tuple[Picture, ...]:
    """Reads the sketches in ``folder``/data/more2, some of which are lines to draw. Empty without that folder."""
    people, strokes = (folder / "data" / "more2" / f"{name}.tar.gz" for name in ("people", "strokes"))
    sketches = read_archives(path for path in (people,) if path.is_file()).sketches
    return sketches + (_class_folders(_draw_strokes(unpack(strokes)), "strokes") if strokes.is_file() else ())


def read_line_drawings(folder: Path, parts: Sequence[str]) -> tuple[Picture, ...]:
    """Reads the drawings in ``folder``/data/more3 that a training on these parts may see, by its classes.csv."""
    archives = folder / "data" / "more3"
    allowed = {"", *(("val", "near_val") if "val" in parts else ())}
    allowed |= {"unseen", "ship", "near_unseen_or_ship"} if "ship" in parts else set()
    try:
        with (archives / "classes.csv").open(encoding="utf-8", newline="") as file:
            classes = {row["class"] for row in csv.DictReader(file) if row["leave_out"] in allowed}
    except (OSError, KeyError) as error:
        raise ModelError(f"{archives / 'classes.csv'} does not say which drawings to leave out ({error})") from error
    sketches = read_archives([archives / f"{DRAWINGS_PART}.tar.gz"]).of(classes).sketches
    return tuple(replace(sketch, source=DRAWINGS_PART) for sketch in sketches)


def _draw_strokes(root: Path) -> Path:
    """Returns the folder <class>/*.png of the strokes in ``root``, which are drawn at the first call."""
    target = root / "drawn"
    if target.exists():
        return target
    with _new_folder(target) as partial:
        for name, drawings in _strokes_of_classes(root):
            (partial / name).mkdir()
            for number, strokes in enumerate(drawings):
                # Four widths by turns: sketches come with thin and with thick lines.
                image = draw_strokes([40 + 1.69 * points for points in strokes], 4 + 2 * (number % 4))
                image.save(partial / name / f"{number:04}.png")
    return target


def _strokes_of_classes(root: Path) -> Iterator[tuple[str, list[Strokes]]]:
    for packed in sorted((root / "strokes").glob("*.jsonl.gz")):
        with gzip.open(packed, "rt") as lines:
            drawings = [[np.array(points, float).T for points in json.loads(line)] for line in lines]
        yield packed.name.removesuffix(".jsonl.gz"), drawings


# The class of drawings by a program, and how many there are.
FIGURE, FIGURES = "person", 1200


def read_figures() -> tuple[Picture, ...]:
    """Reads drawings of people by a program, which are drawn at the first call."""
    target = cache_folder() / "images" / f"figures-{FIGURES}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _new_folder(target) as partial:
            (partial / FIGURE).mkdir()
            for number in range(FIGURES):
                draw_person(np.random.default_rng(number)).save(partial / FIGURE / f"{number:04}.png")
    return _class_folders(target, "figures")


def read_strokes(folder: Path) -> list[Strokes]:
    """Reads drawings in ``folder``/data/more2 as their strokes in order, each (n, 2). Empty without that file."""
    archive = folder / "data" / "more2" / "strokes.tar.gz"
    classes = _strokes_of_classes(unpack(archive)) if archive.is_file() else ()
    return [drawing for _, drawings in classes for drawing in drawings]


def draw_strokes(strokes: Strokes, width: int) -> Image.Image:
    """Draws strokes, x and y in pixels, as black lines with round ends on white, 512 x 512."""
    image = Image.new("L", (512, 512), 255)
    draw = ImageDraw.Draw(image)
    for points in strokes:
        draw.line([*map(tuple, points.tolist())], fill=0, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=0)
    return image


def too_near(folder: Path, parts: Sequence[str]) -> frozenset[str]:
    """Finds the classes that a training on these parts leaves out, because its figures would not be zero-shot.

    Without "val" these are near validation classes, and without "ship" near unseen ones. Abstract figures never count.
    """
    path = folder / "data" / "more" / "split.json"
    flags = [_WITHOUT_PHOTOS, *(flag for part, flag in _NEAR.items() if part not in parts)]
    return frozenset(label for flag in flags for label in _read_list(path, "flags", flag))


_SCENES_SOURCE = "voc2007"
# The class of drawn things for each word of PASCAL VOC, but for the dining table, which people hardly draw alone.
_SAME = ("bicycle", "bird", "bus", "car", "cat", "chair", "cow", "dog", "horse", "person", "sheep", "train")
_OTHERS = "aeroplane=airplane boat=sailboat bottle=wine_bottle motorbike=motorcycle pottedplant=potted_plant sofa=couch"
_RENAMED = dict(pair.split("=") for pair in f"{_OTHERS} tvmonitor=television".split())
_SCENE_CLASSES = dict(zip(_SAME, _SAME, strict=True)) | _RENAMED
# Left, top, right and bottom, as shares of a picture's sides.
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """A photo, its largest class or "", its boxes that count, and each class's largest share of it, in (0, 1]."""

    picture: Picture
    boxes: tuple[tuple[str, Box], ...]
    shares: dict[str, float]


def read_scenes(folder: Path) -> tuple[Scene, ...]:
    """Reads the ordinary photos, without boxes marked difficult. Raises ModelError if they are missing or damaged."""
    photos = unpack(folder / "data" / "more" / "everyday.tar.gz") / _SCENES_SOURCE
    try:
        boxes = json.loads((photos / "labels.json").read_text())
        return tuple(_scene(photos / name, boxes[name]) for name in sorted(boxes))
    except (OSError, json.JSONDecodeError, TypeError, ValueError) as error:
        raise ModelError(f"{photos / 'labels.json'} cannot be read ({error}); unpack the data anew") from error


def _scene(path: Path, boxes: list[tuple[str, bool, float, float, float, float]]) -> Scene:
    shares, counting = dict[str, float](), list[tuple[str, Box]]()
    for word, difficult, left, top, right, bottom in boxes:
        label = _SCENE_CLASSES.get(word)
        if label is not None and not difficult:
            shares[label] = max(shares.get(label, 0.0), (right - left) * (bottom - top))
            counting.append((label, (left, top, right, bottom)))
    label, *others = sorted(shares, key=lambda name: (-shares[name], name)) or [""]
    return Scene(Picture(path, label, _SCENES_SOURCE, tuple(others)), tuple(counting), shares)

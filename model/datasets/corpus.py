"""Labelled sketches and photos on disk, for training and evaluation."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from model.errors import ModelError
from model.images import IMAGE_SUFFIXES

DATA_VARIABLE = "SKETCH_SEARCH_DATA"
# Photos of these sets are 84 and 64 pixels wide: good enough for training, too small for evaluation.
THUMBNAIL_SETS = frozenset({"miniimagenet", "tinyimagenet"})
# Sets without labels.
UNLABELLED_SETS = frozenset({"realphotos"})
# Archives of data/more laid out as those of data are: <set>/{sketch,photo}/<class>/*.
FURTHER_ARCHIVES = ("ship", "sketches")
QUERIES_PER_CLASS = 10
# Classes of the unseen split that are no class of ImageNet-1k, nor contain one: a network that was pretrained on it
# never saw their names.
WITHOUT_NAMESAKE = (
    "bat",
    "brain",
    "cabin",
    "pear",
    "rollerblades",
    "saw",
    "skyscraper",
    "sword",
    "tree",
)


@dataclass(frozen=True)
class Picture:
    """One labelled file.

    Attributes:
        label: its class. source: the set it comes from.
        also: further classes that a photo shows, in whose rankings it is right as well.
    """

    path: Path
    label: str
    source: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Sketches and photos, each sorted by source, class and file name."""

    sketches: tuple[Picture, ...]
    photos: tuple[Picture, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes, sorted."""
        return tuple(sorted({picture.label for picture in (*self.sketches, *self.photos)}))

    def of(self, labels: Collection[str]) -> Corpus:
        """The pictures of these classes only."""
        wanted = frozenset(labels)
        return Corpus(
            tuple(p for p in self.sketches if p.label in wanted), tuple(p for p in self.photos if p.label in wanted)
        )

    def protocol(self) -> Corpus:
        """The queries and the gallery that figures are measured on.

        Queries: of each class the first ten sketches by file name from each source that has it. Gallery: all photos
        of the sources of 96 pixels and more.
        """
        queries: list[Picture] = []
        taken: dict[tuple[str, str], int] = {}
        for picture in self.sketches:
            key = (picture.source, picture.label)
            taken[key] = taken.get(key, 0) + 1
            if taken[key] <= QUERIES_PER_CLASS:
                queries.append(picture)
        return Corpus(tuple(queries), self.without_thumbnails().photos)

    def without_thumbnails(self) -> Corpus:
        """The sketches, and the photos of the sets of 96 pixels and more: those that are good enough to judge by."""
        return Corpus(self.sketches, tuple(p for p in self.photos if p.source not in THUMBNAIL_SETS))


def read_class_folders(folder: Path, source: str = "") -> Corpus:
    """Reads ``folder/sketch/<class>/*`` and ``folder/photo/<class>/*``; one of the two may be missing.

    Raises ModelError for a folder that has neither.
    """
    halves = {half: folder / half for half in ("sketch", "photo")}
    if not any(path.is_dir() for path in halves.values()):
        raise ModelError(f"{folder} holds neither sketch/<class>/ nor photo/<class>/ folders")
    return Corpus(*(tuple(in_class_folders(path, source)) for path in halves.values()))


def data_folder() -> Path:
    """The folder that SKETCH_SEARCH_DATA names. Raises ModelError where there is none."""
    value = os.environ.get(DATA_VARIABLE)
    if not value or not (Path(value) / "data").is_dir():
        raise ModelError(
            f"set {DATA_VARIABLE} to the folder that holds data/ (archives of class folders and split.json), "
            "or name a folder of sketch/<class>/ and photo/<class>/ with --data"
        )
    return Path(value)


def read_data(folder: Path) -> Corpus:
    """All labelled sets among the archives in ``folder``/data; they are unpacked once, to the user's cache."""
    packed = sorted((folder / "data").glob("*.tar.gz"))
    return _corpus(
        cache_folder() / "images", [p for p in packed if p.name.removesuffix(".tar.gz") not in UNLABELLED_SETS]
    )


def _corpus(cache: Path, archives: Iterable[Path]) -> Corpus:
    names = set()
    for packed in archives:
        root = unpacked(packed, cache)
        names |= {(root, child) for child in _children(root)}
    parts = [read_class_folders(root / child, child) for root, child in sorted(names)]

    def in_order(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
        return tuple(sorted(pictures, key=lambda p: (p.source, p.label, p.path.name)))

    return Corpus(in_order(p for c in parts for p in c.sketches), in_order(p for c in parts for p in c.photos))


def read_more(folder: Path) -> Corpus:
    """The labelled sketches and photos of the archives in ``folder``/data/more: further classes. Empty without any."""
    archives = [folder / "data" / "more" / f"{name}.tar.gz" for name in FURTHER_ARCHIVES]
    return _corpus(cache_folder() / "images", [archive for archive in archives if archive.is_file()])


def read_split(folder: Path, name: str) -> tuple[str, ...]:
    """The classes of one part: "train", "val" or "unseen"; data/more/split.json lists those of "more" and "ship"."""
    path = folder / "data" / ("more" if name in ("more", "ship") else "") / "split.json"
    try:
        content = json.loads(path.read_text())
        return tuple(content[name])
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no list of classes named {name!r} ({error})") from error


def thin_classes(folder: Path, corpus: Corpus) -> tuple[str, ...]:
    """Classes that have sketches and photos, but too few to be measured on: ``folder``/data/split.json omits them."""
    named = {label for part in ("train", "val", "unseen") for label in read_split(folder, part)}
    both = {p.label for p in corpus.sketches} & {p.label for p in corpus.photos}
    return tuple(sorted(both - named))


def read_protocol(part: str) -> Corpus:
    """Queries and gallery of one part of the split ("train", "val" or "unseen") of the data of SKETCH_SEARCH_DATA."""
    folder = data_folder()
    return read_data(folder).of(read_split(folder, part)).protocol()


def cache_folder() -> Path:
    """Where unpacked archives and prepared pixels are kept between runs."""
    return platformdirs.user_cache_path("sketch-search")


def unpacked(archive: Path, cache: Path) -> Path:
    """The folder in ``cache`` with the files of a .tar.gz, which is unpacked once for all runs and parallel processes.

    The folder's name contains the size of the archive, so that another archive of the same name is unpacked again.
    """
    target = cache / f"{archive.name.removesuffix('.tar.gz')}-{archive.stat().st_size}"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=target.name, suffix=".partial", dir=cache))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        partial.rename(target)
    except OSError:
        # A folder cannot be renamed to one that holds files: another process has unpacked the archive meanwhile.
        if not target.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _children(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir())


def in_class_folders(folder: Path, source: str) -> Iterable[Picture]:
    """The pictures in ``folder``/<class>/*, sorted by class and file name; none where there is no such folder."""
    if not folder.is_dir():
        return
    for label in _children(folder):
        for path in sorted((folder / label).iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                yield Picture(path, label, source)

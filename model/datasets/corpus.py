"""Labelled sketches and photos on disk: which are fresh, and which sketch was drawn from which photo."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

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
WITHOUT_NAMESAKE = ("bat", "brain", "cabin", "pear", "rollerblades", "saw", "skyscraper", "sword", "tree")


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
    return _corpus(archive for archive in packed if archive.name.removesuffix(".tar.gz") not in UNLABELLED_SETS)


def _corpus(archives: Iterable[Path]) -> Corpus:
    names = {(root, child) for root in map(unpacked, archives) for child in _children(root)}
    parts = [read_class_folders(root / child, child) for root, child in sorted(names)]

    def in_order(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
        return tuple(sorted(pictures, key=lambda p: (p.source, p.label, p.path.name)))

    return Corpus(in_order(p for c in parts for p in c.sketches), in_order(p for c in parts for p in c.photos))


def read_more(folder: Path) -> Corpus:
    """The labelled sketches and photos of the archives in ``folder``/data/more: further classes. Empty without any."""
    archives = [folder / "data" / "more" / f"{name}.tar.gz" for name in FURTHER_ARCHIVES]
    return _corpus(archive for archive in archives if archive.is_file())


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


def unpacked(archive: Path) -> Path:
    """The folder with the files of a .tar.gz, which is unpacked once for all runs and parallel processes.

    The folder's name contains the size of the archive, so that another archive of the same name is unpacked again.
    Raises ModelError where there is no such archive.
    """
    if not archive.is_file():
        raise ModelError(f"there is no {archive}; the optional data has it, and this needs it")
    cache = cache_folder() / "images"
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


# A sketch is named after its photo and numbered: NAME-3.png in Sketchy, NAME_3.png in QMUL's sets.
_OF_PHOTO = re.compile(r"(.+)[-_]\d+")


def drawn_from(corpus: Corpus) -> NDArray[np.int64]:
    """(sketches,) int64: the index of the photo that each sketch was drawn from, or -1 for none.

    The two have the same class and source, and the sketch's name is the photo's, followed by a number as "-3" or "_3".
    """
    photos = {(p.source, p.label, p.path.stem): number for number, p in enumerate(corpus.photos)}
    named = [(p, _OF_PHOTO.fullmatch(p.path.stem)) for p in corpus.sketches]
    return np.array([photos.get((p.source, p.label, name[1]), -1) if name else -1 for p, name in named], np.int64)


def with_pairs(corpus: Corpus) -> Corpus:
    """Only the sketches that were drawn from one of the photos, and all the photos. Raises ModelError without any."""
    targets = drawn_from(corpus)
    sketches = tuple(s for s, target in zip(corpus.sketches, targets, strict=True) if target >= 0)
    if not sketches:
        raise ModelError(
            "no sketch is named after a photo of its class (sketch NAME-1.png or NAME_1.png of photo NAME.jpg), "
            "so there is nothing fine-grained to measure"
        )
    return Corpus(sketches, corpus.photos)


# Shares of a class's sketches and photos. The sketch share must not be the larger one: see `split_fresh`.
FRESH_SKETCHES = 0.1
FRESH_PHOTOS = 0.2


def split_fresh(corpus: Corpus) -> tuple[Corpus, Corpus]:
    """The corpus without its fresh pictures, and the fresh ones.

    A picture is fresh when a hash of its class and file name falls into the first tenth (sketches) or fifth (photos)
    of all values. The choice depends on these names alone: it stays when pictures are added, and a photo that several
    sets hold under one name is fresh in all of them. A sketch that was drawn from a photo of the corpus takes that
    photo's name, so the photo of a fresh sketch is always fresh as well.
    """
    sources = [
        corpus.photos[target] if target >= 0 else sketch
        for sketch, target in zip(corpus.sketches, drawn_from(corpus).tolist(), strict=True)
    ]
    fresh = Corpus(
        tuple(
            sketch
            for sketch, source in zip(corpus.sketches, sources, strict=True)
            if is_fresh(sketch.label, source.path.stem, FRESH_SKETCHES)
        ),
        tuple(photo for photo in corpus.photos if is_fresh(photo.label, photo.path.stem, FRESH_PHOTOS)),
    )
    sketches, photos = set(fresh.sketches), set(fresh.photos)
    kept = tuple(s for s in corpus.sketches if s not in sketches), tuple(p for p in corpus.photos if p not in photos)
    return Corpus(*kept), fresh


def is_fresh(label: str, name: str, share: float) -> bool:
    """True if the picture ``name`` (without suffix) of class ``label`` is among the first ``share`` by its hash."""
    digest = hashlib.sha256(f"fresh/{label}/{name.lower()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64

"""Readers for public data sets: file lists of category sets, and standard splits of classes."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.datasets.corpus import Corpus, Picture
from model.errors import ModelError
from model.terminal import resolved

# Splits that publications use; the numbers are those of the seen and the unseen classes.
STANDARD_SPLITS = ("sketchy_104_21", "sketchy_100_25", "tuberlin_220_30", "quickdraw_80_30")
# The names of the lists of Sketchy, TU-Berlin and QuickDraw Extended in the release of ZSE-SBIR.
_SKETCH_LISTS = ("sketch_tx_000000000000_ready_filelist_{}.txt", "png_ready_filelist_{}.txt", "sketch_{}.txt")
_PHOTO_LISTS = ("all_photo_filelist_{}.txt", "ImageResized_ready_filelist_{}.txt", "all_photo_{}.txt")
_CLASS_LISTS = {"train": "cname_cid.txt", "zero": "cname_cid_zero.txt"}


@dataclass(frozen=True)
class Split:
    """Classes to train on and classes to test on, as their data set spells them."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def standard_split(name: str) -> Split:
    """One of STANDARD_SPLITS. Raises ModelError for another name."""
    if name not in STANDARD_SPLITS:
        raise ModelError(f"there is no standard split {name!r}; choose one of {', '.join(STANDARD_SPLITS)}")
    folder = importlib.resources.files("model.datasets") / "splits"

    def classes(part: str) -> tuple[str, ...]:
        lines = (folder / f"{name}.{part}.txt").read_text(encoding="utf-8").splitlines()
        return tuple(line for line in lines if line and not line.startswith("#"))

    return Split(classes("seen"), classes("unseen"))


def class_key(name: str) -> str:
    """One spelling for all of a class name: "hot-air balloon" and "Hot_air_balloon" become "hot_air_balloon"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def classes_named(corpus: Corpus, names: Collection[str], *, exclude: bool = False) -> Corpus:
    """Only the classes of these names in any spelling, or all but them. Raises ModelError where nothing is left."""
    keys = {class_key(name) for name in names}
    labels = [label for label in corpus.labels if (class_key(label) in keys) != exclude]
    if not labels:
        raise ModelError("none of the classes asked for is in the data; check the spelling of its class names")
    return corpus.of(labels)


def read_file_lists(folder: Path, part: Literal["train", "zero"]) -> Corpus:
    """The pictures in a folder of file lists, such as ``datasets/Sketchy/zeroshot1`` of the public release.

    A line of a list is a path relative to the folder's parent, a space and a class number; one of the class list is a
    name, a space and a number. ``zero`` are the unseen classes. The source is the parent's name in lower case.
    Raises ModelError with the file and line that are wrong, or the file that is missing.
    """
    classes = _read_classes(folder / _CLASS_LISTS[part])
    halves = []
    for names in (_SKETCH_LISTS, _PHOTO_LISTS):
        paths = [folder / name.format(part) for name in names]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise ModelError(f"{folder} holds none of the lists {', '.join(path.name for path in paths)}")
        halves.append(tuple(_read_list(found, resolved(folder).parent, classes)))
    return Corpus(*halves)


def _read_classes(path: Path) -> dict[int, str]:
    classes: dict[int, str] = {}
    for where, line in _lines(path):
        name, number = _ends_in_number(where, line, "class name")
        if number in classes:
            raise ModelError(f"{where}: class {number} is named a second time")
        classes[number] = name
    return classes


def _read_list(path: Path, root: Path, classes: dict[int, str]) -> Iterator[Picture]:
    for where, line in _lines(path):
        name, number = _ends_in_number(where, line, "path")
        if number not in classes:
            raise ModelError(f"{where}: class {number} has no name in the list of classes beside it")
        if not (root / name).is_file():
            raise ModelError(f"{where}: there is no file {root / name}; the paths are relative to {root}")
        yield Picture(root / name, classes[number], root.name.lower())


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where a line stands, and the line, without empty ones."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read ({error})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _ends_in_number(where: str, line: str, what: str) -> tuple[str, int]:
    name, _, number = line.rpartition(" ")
    if not name.strip() or not number.isdecimal():
        raise ModelError(f"{where}: not a {what}, a space and a class number: {line!r}")
    return name.strip(), int(number)

"""Tasks with large and mixed galleries, as in a person's folder with things of all kinds."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.datasets.corpus import (
    Corpus,
    Picture,
    data_folder,
    read_data,
    read_more,
    read_split,
    thin_classes,
)
from model.datasets.fresh import split_fresh
from model.datasets.protocols import Protocol, answerable, subsampled
from model.datasets.scenes import Scene, read_scenes
from model.errors import ModelError

LARGE_PROTOCOLS: tuple[Protocol, ...] = ("fresh", "everything", "everyday")
ALL_TRAINED = "train+val+thin"
TRAINED, UNSEEN = "trained", "unseen"
# Ranges of the share of an ordinary photo that the thing covers; figures are given for each range.
SIZES = (("below 5%", 0.0, 0.05), ("5 to 20%", 0.05, 0.2), ("above 20%", 0.2, 1.01))


@dataclass(frozen=True)
class GroupedTask:
    """Queries in named groups against one gallery.

    Attributes:
        corpus: queries and gallery; every query has a relevant photo.
        groups: for each name of a group of queries, their classes.
        harmonic: two groups whose harmonic mean is given, too; None where there are not two groups.
        sizes: for each name of a size, (q, g) bool: photos that are relevant and show the thing in that size. Only for
            ordinary photos.
    """

    corpus: Corpus
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    harmonic: tuple[str, str] | None = None
    sizes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def subsampled(self, sketches: int, photos: int) -> GroupedTask:
        """The same task with every ``sketches``-th sketch and every ``photos``-th photo only."""
        sizes = {name: right[::sketches, ::photos] for name, right in self.sizes.items()}
        return GroupedTask(subsampled(self.corpus, sketches, photos), self.groups, self.harmonic, sizes)


def read_large_task(protocol: Protocol, split: str | None = None, trained_on: str | None = None) -> GroupedTask:
    """Reads the pictures of one of LARGE_PROTOCOLS from the optional data.

    Args:
        split: the classes that were not trained on, "val" (also None) or "unseen"; only for "everything".
        trained_on: parts whose fresh pictures are used, joined by "+"; "thin" means the classes that the split leaves
            out. None for "train" with val, "train+val+thin" otherwise.

    Raises ModelError for arguments that contradict each other, or data that is missing.
    """
    folder = data_folder()
    if split is not None and protocol != "everything":
        raise ModelError(f"--protocol {protocol} has no split; leave out --split")
    if protocol == "everyday":
        if trained_on is not None:
            raise ModelError("ordinary photos do not depend on what was trained on; leave out --trained-on")
        return everyday_task(folder)
    if protocol == "fresh":
        return fresh_task(folder, trained_on or ALL_TRAINED)
    split = split or "val"
    return everything_task(folder, split, trained_on or ("train" if split == "val" else ALL_TRAINED))


def fresh_task(folder: Path, trained_on: str) -> GroupedTask:
    """Fresh sketches of the trained classes against the fresh photos of these classes."""
    data = _read(folder)
    corpus = split_fresh(data.of(_classes(folder, trained_on)))[1].without_thumbnails()
    return _task(corpus.sketches, corpus.photos)


def everything_task(folder: Path, split: str, trained_on: str) -> GroupedTask:
    """Fresh sketches of trained classes, and sketches of classes of ``split``, against a gallery of everything.

    The gallery: the fresh photos of the trained classes, all photos of the classes of ``split``, and the ordinary
    photos. Of each class of ``split`` and each source the first ten sketches are queries, as in the zero-shot protocol.
    Raises ModelError where a class is both.
    """
    data = _read(folder)
    trained, unseen = _classes(folder, trained_on), set(read_split(folder, split))
    if both := sorted(trained & unseen):
        raise ModelError(f"{split} has classes of {trained_on} ({both[0]}, ...); name another --split or --trained-on")
    fresh, new = split_fresh(data.of(trained))[1].without_thumbnails(), data.of(unseen).protocol()
    scenes = tuple(scene.picture for scene in read_scenes(folder))
    groups = {TRAINED: trained, UNSEEN: unseen}
    return _task(fresh.sketches + new.sketches, fresh.photos + new.photos + scenes, groups, (TRAINED, UNSEEN))


def everyday_task(folder: Path) -> GroupedTask:
    """Fresh sketches of the things that ordinary photos show, against the ordinary photos, by class and by size."""
    scenes = read_scenes(folder)
    classes = {label for scene in scenes for label in scene.shares}
    sketches = split_fresh(_read(folder).of(classes))[1].sketches
    task = _task(sketches, tuple(scene.picture for scene in scenes), {label: {label} for label in sorted(classes)})
    return GroupedTask(task.corpus, task.groups, sizes=_by_size(task.corpus.sketches, scenes))


def write_folders(task: GroupedTask, folder: Path) -> None:
    """Writes a task's pictures as class folders, so that it can be indexed and searched like anybody's photos.

    Photos go to ``folder``/photo/<class>/, one that shows several classes into the folder of each, and one that shows
    none of them to photo/other/. Sketches go to ``folder``/<group>/sketch/<class>/. Each file gets its source's name in
    front of its own. Raises ModelError where ``folder`` has files already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"{folder} has files already; name an empty or a new folder")
    for photo in task.corpus.photos:
        for label in {photo.label, *photo.also} - {""} or {"other"}:
            _copy(photo, folder / "photo" / label)
    for group, labels in task.groups.items():
        for sketch in task.corpus.sketches:
            if sketch.label in labels:
                _copy(sketch, folder / group / "sketch" / sketch.label)


def _copy(picture: Picture, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture.path, folder / f"{picture.source}-{picture.path.name}")


def _task(
    sketches: tuple[Picture, ...],
    photos: tuple[Picture, ...],
    wanted: Mapping[str, Collection[str]] | None = None,
    harmonic: tuple[str, str] | None = None,
) -> GroupedTask:
    corpus = answerable(Corpus(sketches, photos))
    asked = {picture.label for picture in corpus.sketches}
    found = {name: frozenset(labels) & asked for name, labels in (wanted or {}).items()}
    groups = {name: labels for name, labels in found.items() if labels}
    return GroupedTask(corpus, groups, harmonic if harmonic and set(harmonic) <= set(groups) else None)


def _by_size(sketches: tuple[Picture, ...], scenes: tuple[Scene, ...]) -> dict[str, NDArray[np.bool_]]:
    shares = {
        label: np.array([scene.shares.get(label, 0.0) for scene in scenes]) for label in {s.label for s in sketches}
    }
    matrix = np.stack([shares[sketch.label] for sketch in sketches])
    return {name: (matrix > 0) & (matrix >= low) & (matrix < high) for name, low, high in SIZES}


def _read(folder: Path) -> Corpus:
    first, further = read_data(folder), read_more(folder)
    return Corpus(first.sketches + further.sketches, first.photos + further.photos)


def _classes(folder: Path, parts: str) -> set[str]:
    """The classes of parts joined by "+"; "thin" are those that the split leaves out."""
    found: set[str] = set()
    for part in parts.split("+"):
        found |= set(thin_classes(folder, read_data(folder)) if part == "thin" else read_split(folder, part))
    return found

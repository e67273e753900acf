"""Queries and gallery of every protocol, from what a user names: protocol, split, data folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.datasets.corpus import (
    THUMBNAIL_SETS,
    WITHOUT_NAMESAKE,
    Corpus,
    Picture,
    data_folder,
    drawn_from,
    read_class_folders,
    read_data,
    read_more,
    read_split,
    split_fresh,
    thin_classes,
    with_pairs,
)
from model.datasets.layouts import STANDARD_SPLITS, classes_named, read_file_lists, standard_split
from model.datasets.optional import Scene, read_scenes
from model.errors import ModelError

Protocol = Literal["zero-shot", "generalised", "cross-data-set", "fine-grained", "fresh", "everything", "everyday"]
PROTOCOLS: tuple[Protocol, ...] = (
    "zero-shot",
    "generalised",
    "cross-data-set",
    "fine-grained",
    "fresh",
    "everything",
    "everyday",
)
# Share of the photos of each training class that the generalised protocol holds out of training.
HELD_OUT = 0.2
# Sets with sketches. Only Sketchy has photos of its own; the other two share the photos of all other sets.
SKETCH_SETS = ("sketchy", "tuberlin", "quickdraw")
_WITH_PHOTOS = "sketchy"


def hold_out(corpus: Corpus, share: float = HELD_OUT) -> tuple[Corpus, tuple[Picture, ...]]:
    """Splits off some photos of each class: the corpus without them, and those photos.

    Class and file name alone decide which, so that training and evaluation hold out the same photos. Sets of
    thumbnails give none, because no gallery has them; but a photo that is held out is removed from every set that has
    one of the same name.
    """
    names: dict[str, set[str]] = {}
    for picture in corpus.photos:
        if picture.source not in THUMBNAIL_SETS:
            names.setdefault(picture.label, set()).add(_name(picture))
    held = {
        (label, name)
        for label, all_names in names.items()
        for name in sorted(all_names, key=lambda name: _order(label, name))[: round(share * len(all_names))]
    }
    kept = tuple(p for p in corpus.photos if (p.label, _name(p)) not in held)
    out = tuple(p for p in corpus.photos if (p.label, _name(p)) in held and p.source not in THUMBNAIL_SETS)
    return Corpus(corpus.sketches, kept), out


def generalised(corpus: Corpus, seen: Collection[str], unseen: Collection[str]) -> Corpus:
    """Queries of the unseen classes; the gallery holds their photos and the held-out photos of the seen classes."""
    of_unseen = corpus.of(unseen)
    return Corpus(of_unseen.sketches, of_unseen.photos + hold_out(corpus.of(seen))[1])


def one_data_set(corpus: Corpus, source: str) -> Corpus:
    """The pictures for a training on one data set: its sketches, and the photos that go with them."""
    _check(source)
    return Corpus(
        tuple(p for p in corpus.sketches if p.source == source),
        tuple(p for p in corpus.photos if _goes_with(p, source)),
    )


def cross_data_set(corpus: Corpus, trained: str) -> Corpus:
    """Queries and gallery for a network trained on one data set: sketches and photos of the other sets only.

    For Sketchy these are the sketches of TU-Berlin and Quick, Draw! and the photos of all sets but Sketchy; for either
    of those, the sketches of the other two sets and the photos of Sketchy. First remove the classes that were trained
    on (``Corpus.of``).
    """
    _check(trained)
    return Corpus(
        tuple(p for p in corpus.sketches if p.source != trained),
        tuple(p for p in corpus.photos if not _goes_with(p, trained)),
    )


def fine_grained(corpus: Corpus) -> Corpus:
    """One sketch for each photo, the first by file name of those drawn from it; the gallery keeps all photos."""
    paired = with_pairs(corpus)
    seen: set[int] = set()
    sketches = []
    for sketch, target in zip(paired.sketches, drawn_from(paired).tolist(), strict=True):
        if target not in seen:
            seen.add(target)
            sketches.append(sketch)
    return Corpus(tuple(sketches), corpus.photos)


def answerable(corpus: Corpus) -> Corpus:
    """The corpus without the sketches whose class has no photo."""
    there = {label for p in corpus.photos for label in (p.label, *p.also)}
    return Corpus(tuple(p for p in corpus.sketches if p.label in there), corpus.photos)


def subsampled(corpus: Corpus, sketches: int, photos: int) -> Corpus:
    """Every ``sketches``-th sketch and every ``photos``-th photo, as the quick forms of the published protocols do."""
    return Corpus(corpus.sketches[::sketches], corpus.photos[::photos])


def rows_by_class(pictures: Sequence[Picture]) -> dict[str, list[int]]:
    """The places of each class's pictures; classes are in the order of their first pictures."""
    return rows_by_label(picture.label for picture in pictures)


def rows_by_label(labels: Iterable[str]) -> dict[str, list[int]]:
    """Finds the places of each label; labels are in the order in which they first occur."""
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows


def rows_of_each(pictures: Sequence[Picture], most: int) -> list[int]:
    """The places of ``most`` pictures at most of each class, evenly spaced over their order; ascending."""
    return sorted(row for rows in rows_by_class(pictures).values() for row in rows[:: -(-len(rows) // most)])


def some_of_each(pictures: Sequence[Picture], most: int) -> tuple[Picture, ...]:
    """The pictures at ``rows_of_each``."""
    return tuple(pictures[row] for row in rows_of_each(pictures, most))


def _goes_with(photo: Picture, source: str) -> bool:
    return (photo.source == _WITH_PHOTOS) == (source == _WITH_PHOTOS)


def _check(source: str) -> None:
    if source not in SKETCH_SETS:
        raise ModelError(f"there is no data set {source!r} with sketches; choose one of {', '.join(SKETCH_SETS)}")


def _name(picture: Picture) -> str:
    return picture.path.stem.lower()


def _order(label: str, name: str) -> bytes:
    return hashlib.sha256(f"{label}/{name}".encode()).digest()


Layout = Literal["folders", "lists"]
LAYOUTS: tuple[Layout, ...] = ("folders", "lists")
PARTS = ("val", "unseen", "train")
SPLITS = (*PARTS, *STANDARD_SPLITS)


@dataclass(frozen=True)
class Task:
    """The pictures of one evaluation.

    Attributes:
        protocol: the rules by which the corpus was chosen.
        corpus: the queries and the gallery.
        subset: classes whose queries are measured once more separately; empty for none.
        about: sentences that belong to the figures.
    """

    protocol: Protocol
    corpus: Corpus
    subset: tuple[str, ...] = ()
    about: tuple[str, ...] = ()


def read_task(
    protocol: Protocol = "zero-shot",
    split: str | None = None,
    trained_on: str | None = None,
    data: Path | None = None,
    layout: Layout = "folders",
) -> Task:
    """Reads the pictures of one protocol.

    Args:
        split: one of SPLITS, whose classes are queried; None for "val" of the optional data, or for all of ``data``.
        trained_on: what the checkpoint must have been trained on for the figures to be valid. In cross-data-set
            "sketchy", "tuberlin" or "quickdraw" (None: "sketchy"), or, with ``data``, a standard split, whose seen
            classes are left out. In generalised: parts of the split joined by "+" (None: "train"). In fine-grained:
            such parts, whose fresh sketches are the queries then, in the place of a split's.
        data: a folder in the layout ``layout``; None for the data that SKETCH_SEARCH_DATA names.

    Raises ModelError for arguments that contradict each other, or data that is missing.
    """
    takes_training = protocol == "cross-data-set" or (protocol in ("generalised", "fine-grained") and data is None)
    if trained_on is not None and not takes_training:
        raise ModelError(
            "--trained-on belongs to --protocol cross-data-set, and without --data to generalised and fine-grained"
        )
    if data is None:
        if layout != "folders":
            raise ModelError(f"the layout {layout!r} needs a folder: --data DIR")
        if protocol == "fine-grained" and trained_on is not None:
            if split is not None:
                raise ModelError("fresh sketches of trained classes have no split; leave out --split or --trained-on")
            return _fresh_pairs(trained_on)
        return _of_optional_data(protocol, split or "val", trained_on)
    readers: dict[Layout, Callable[[Protocol, str | None, Path], tuple[Corpus, tuple[str, ...]]]] = {
        "folders": _of_folders,
        "lists": _of_lists,
    }
    if protocol == "cross-data-set" and trained_on not in STANDARD_SPLITS:
        raise ModelError(
            "across data sets a folder is measured without the classes trained on: "
            f"name their split with --trained-on, one of {', '.join(STANDARD_SPLITS)}"
        )
    corpus, about = readers[layout](protocol, split, data)
    if protocol == "cross-data-set" and trained_on is not None:
        corpus = classes_named(corpus, standard_split(trained_on).seen, exclude=True)
        about = (f"classes outside the training classes of {trained_on}",)
    return Task(protocol, corpus, about=about)


def _of_optional_data(protocol: Protocol, split: str, trained_on: str | None) -> Task:
    folder = data_folder()
    everything = read_data(folder)
    corpus = (
        everything.of(read_split(folder, split))
        if split in PARTS
        else classes_named(everything, standard_split(split).unseen)
    )
    subset = WITHOUT_NAMESAKE if split == "unseen" else ()
    if protocol == "generalised":
        parts = (trained_on or "train").split("+")
        seen = _classes_of(folder, parts)
        if set(seen) & set(corpus.labels):
            raise ModelError(f"{split} has classes of {trained_on or 'train'}; name another --split")
        whole = generalised(everything, seen, corpus.labels).protocol()
        return Task(protocol, whole, subset, (_held_out(len(whole.photos) - len(corpus.protocol().photos), parts),))
    if protocol == "cross-data-set":
        trained = trained_on or "sketchy"
        crossed = cross_data_set(corpus, trained).protocol()
        lost = len({p.label for p in crossed.sketches}) - len({p.label for p in answerable(crossed).sketches})
        about = f"valid for a checkpoint that was trained on {trained} alone"
        if lost:
            about += f"; {lost} classes are left out, of which the gallery has no photo"
        return Task(protocol, answerable(crossed), subset, (about,))
    if protocol == "fine-grained":
        return Task(protocol, fine_grained(Corpus(corpus.sketches, corpus.protocol().photos)))
    return Task(protocol, corpus.protocol(), subset)


def _classes_of(folder: Path, parts: list[str]) -> list[str]:
    """The classes of these parts of the split."""
    return [label for part in parts for label in read_split(folder, part)]


def _fresh_pairs(trained_on: str) -> Task:
    """Fresh sketches of classes that were trained on, among all photos of these classes."""
    folder = data_folder()
    trained = read_data(folder).of(_classes_of(folder, trained_on.split("+")))
    queries = split_fresh(trained)[1].sketches
    about = (f"fresh sketches of {trained_on}; most photos of the gallery are no fresh ones",)
    return Task("fine-grained", fine_grained(Corpus(queries, trained.protocol().photos)), about=about)


def _of_folders(protocol: Protocol, split: str | None, data: Path) -> tuple[Corpus, tuple[str, ...]]:
    corpus = read_class_folders(data)
    if protocol == "generalised":
        if split in STANDARD_SPLITS:
            standard = standard_split(split)
            seen, unseen = classes_named(corpus, standard.seen).labels, classes_named(corpus, standard.unseen).labels
        else:
            unseen = corpus.labels[::5]
            seen = tuple(set(corpus.labels) - set(unseen))
        return _generalised(corpus, seen, unseen)
    if split in STANDARD_SPLITS:
        corpus = classes_named(corpus, standard_split(split).unseen)
    return (with_pairs(corpus) if protocol == "fine-grained" else corpus), ()


def _of_lists(protocol: Protocol, split: str | None, data: Path) -> tuple[Corpus, tuple[str, ...]]:
    if split not in (None, "train", "unseen"):
        raise ModelError(f"file lists have the parts train and unseen, not {split!r}")
    corpus = read_file_lists(data, "train" if split == "train" else "zero")
    if protocol == "generalised":
        if split == "train":
            raise ModelError("the queries of the generalised protocol are of unseen classes: --split unseen")
        seen = read_file_lists(data, "train")
        both = Corpus(corpus.sketches + seen.sketches, corpus.photos + seen.photos)
        return _generalised(both, seen.labels, corpus.labels)
    return (with_pairs(corpus) if protocol == "fine-grained" else corpus), ()


def _generalised(corpus: Corpus, seen: tuple[str, ...], unseen: tuple[str, ...]) -> tuple[Corpus, tuple[str, ...]]:
    whole = generalised(corpus, seen, unseen)
    return whole, (_held_out(len(whole.photos) - len(corpus.of(unseen).photos), ["seen"]),)


def _held_out(count: int, parts: list[str]) -> str:
    return (
        f"the gallery holds {count} photos, {HELD_OUT:.0%} of each {' and '.join(parts)} class; valid for "
        "a checkpoint that was trained without them"
    )


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
        """Takes every ``sketches``-th sketch and every ``photos``-th photo only."""
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

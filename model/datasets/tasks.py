"""Reads what a user names (protocol, split, data folder) as queries and gallery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.datasets.corpus import WITHOUT_NAMESAKE, Corpus, data_folder, read_class_folders, read_data, read_split
from model.datasets.fresh import split_fresh
from model.datasets.layouts import STANDARD_SPLITS, classes_named, read_file_lists, read_qmul, standard_split
from model.datasets.pairs import with_pairs
from model.datasets.protocols import HELD_OUT, Protocol, answerable, cross_data_set, fine_grained, generalised
from model.errors import ModelError

Layout = Literal["folders", "lists", "qmul"]
LAYOUTS: tuple[Layout, ...] = ("folders", "lists", "qmul")
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
        "qmul": _of_pairs,
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


def _of_pairs(protocol: Protocol, split: str | None, data: Path) -> tuple[Corpus, tuple[str, ...]]:
    if protocol != "fine-grained":
        raise ModelError("pairs of one class are for --protocol fine-grained")
    return with_pairs(read_qmul(data, "train" if split == "train" else "test")), ()


def _generalised(corpus: Corpus, seen: tuple[str, ...], unseen: tuple[str, ...]) -> tuple[Corpus, tuple[str, ...]]:
    whole = generalised(corpus, seen, unseen)
    return whole, (_held_out(len(whole.photos) - len(corpus.of(unseen).photos), ["seen"]),)


def _held_out(count: int, parts: list[str]) -> str:
    return (
        f"the gallery holds {count} photos, {HELD_OUT:.0%} of each {' and '.join(parts)} class; valid for "
        "a checkpoint that was trained without them"
    )

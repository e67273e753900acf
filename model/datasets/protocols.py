"""The protocols of zero-shot sketch-based image retrieval: which pictures are queries, and which the gallery."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Literal

from model.datasets.corpus import THUMBNAIL_SETS, Corpus, Picture
from model.datasets.pairs import drawn_from, with_pairs
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
    rows: dict[str, list[int]] = {}
    for row, picture in enumerate(pictures):
        rows.setdefault(picture.label, []).append(row)
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

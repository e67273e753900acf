"""What counts as queries and what as gallery: the protocols of zero-shot sketch-based image retrieval."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
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
# Share of each training class's photos that the generalised protocol keeps from training.
HELD_OUT = 0.2
# Sets with sketches. Only Sketchy has photos of its own; the sketches of the others go with the photos of all others.
SKETCH_SETS = ("sketchy", "tuberlin", "quickdraw")
_WITH_PHOTOS = "sketchy"


def hold_out(corpus: Corpus, share: float = HELD_OUT) -> tuple[Corpus, tuple[Picture, ...]]:
    """The corpus without some photos of each class, and those photos.

    Which ones is decided by class and file name alone, so that training and evaluation hold out the same ones. Sets of
    thumbnails give none, since no gallery has them; but a photo that several sets hold under one name leaves them
    all.
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
    """Queries of the unseen classes; in the gallery their photos and those held out of the seen classes."""
    of_unseen = corpus.of(unseen)
    return Corpus(of_unseen.sketches, of_unseen.photos + hold_out(corpus.of(seen))[1])


def one_data_set(corpus: Corpus, source: str) -> Corpus:
    """What a training on one data set may see: its sketches, and the photos that go with them."""
    _check(source)
    return Corpus(
        tuple(p for p in corpus.sketches if p.source == source),
        tuple(p for p in corpus.photos if _goes_with(p, source)),
    )


def cross_data_set(corpus: Corpus, trained: str) -> Corpus:
    """Queries and gallery for a network trained on one data set: sketches and photos of the others alone.

    After training on Sketchy that is TU-Berlin's and Quick, Draw!'s sketches against photos not of Sketchy; after
    training on either of those, the sketches of the other two against Sketchy's photos. The classes have to be
    outside the training's; choose them first (``Corpus.of``).
    """
    _check(trained)
    return Corpus(
        tuple(p for p in corpus.sketches if p.source != trained),
        tuple(p for p in corpus.photos if not _goes_with(p, trained)),
    )


def fine_grained(corpus: Corpus) -> Corpus:
    """One sketch a photo, the first by file name of those drawn from it; the gallery stays whole."""
    paired = with_pairs(corpus)
    seen: set[int] = set()
    sketches = []
    for sketch, target in zip(paired.sketches, drawn_from(paired).tolist(), strict=True):
        if target not in seen:
            seen.add(target)
            sketches.append(sketch)
    return Corpus(tuple(sketches), corpus.photos)


def answerable(corpus: Corpus) -> Corpus:
    """Without the sketches whose class has no photo."""
    there = {label for p in corpus.photos for label in (p.label, *p.also)}
    return Corpus(tuple(p for p in corpus.sketches if p.label in there), corpus.photos)


def subsampled(corpus: Corpus, sketches: int, photos: int) -> Corpus:
    """Every ``sketches``-th sketch and every ``photos``-th photo, as the quick forms of the published protocols do."""
    return Corpus(corpus.sketches[::sketches], corpus.photos[::photos])


def _goes_with(photo: Picture, source: str) -> bool:
    return (photo.source == _WITH_PHOTOS) == (source == _WITH_PHOTOS)


def _check(source: str) -> None:
    if source not in SKETCH_SETS:
        raise ModelError(f"there is no data set {source!r} with sketches; choose one of {', '.join(SKETCH_SETS)}")


def _name(picture: Picture) -> str:
    return picture.path.stem.lower()


def _order(label: str, name: str) -> bytes:
    return hashlib.sha256(f"{label}/{name}".encode()).digest()

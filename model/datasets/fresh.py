"""Fresh pictures: a fixed share of every class that no training sees, so that trained classes can be measured, too."""

from __future__ import annotations

import hashlib

from model.datasets.corpus import Corpus
from model.datasets.pairs import drawn_from

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
    targets = drawn_from(corpus).tolist()
    names = [
        (corpus.photos[target] if target >= 0 else sketch).path.stem
        for sketch, target in zip(corpus.sketches, targets, strict=True)
    ]
    fresh_sketches = [
        is_fresh(sketch.label, name, FRESH_SKETCHES) for sketch, name in zip(corpus.sketches, names, strict=True)
    ]
    fresh_photos = [is_fresh(photo.label, photo.path.stem, FRESH_PHOTOS) for photo in corpus.photos]

    def chosen(fresh: bool) -> Corpus:
        return Corpus(
            tuple(p for p, is_new in zip(corpus.sketches, fresh_sketches, strict=True) if is_new is fresh),
            tuple(p for p, is_new in zip(corpus.photos, fresh_photos, strict=True) if is_new is fresh),
        )

    return chosen(False), chosen(True)


def is_fresh(label: str, name: str, share: float) -> bool:
    """Whether the picture ``name`` (without suffix) of class ``label`` is among the first ``share`` by its hash."""
    digest = hashlib.sha256(f"fresh/{label}/{name.lower()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64

"""Pairs: which photo a sketch was drawn from, according to its file name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.datasets.corpus import Corpus
from model.errors import ModelError

# A sketch is named after its photo and numbered: NAME-3.png in Sketchy, NAME_3.png in QMUL's sets.
_OF_PHOTO = re.compile(r"(.+)[-_]\d+")


def photo_name(sketch: Path) -> str | None:
    """The name of the photo, without suffix, that a sketch's file name contains; None where it contains none."""
    name = _OF_PHOTO.fullmatch(sketch.stem)
    return None if name is None else name[1]


def drawn_from(corpus: Corpus) -> NDArray[np.int64]:
    """(sketches,) int64: the index of the photo that each sketch was drawn from, or -1 for none.

    The two have the same class and source, and the sketch's name is the photo's, followed by a number as "-3" or "_3".
    """
    photos = {(p.source, p.label, p.path.stem): number for number, p in enumerate(corpus.photos)}

    numbers = [photos.get((p.source, p.label, photo_name(p.path) or ""), -1) for p in corpus.sketches]
    return np.array(numbers, np.int64)


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

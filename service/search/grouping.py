"""Grouping: the best photos of a ranking, kind by kind (``model.ranking``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.ranking import kinds_of
from service.search.scorer import GalleryScorer, Rows


def group_kinds(scorer: GalleryScorer, rows: Rows) -> tuple[NDArray[np.int64], ...]:
    """The kinds of these photos, which are in the order of a ranking.

    Each kind is an array of indices into ``rows``, ascending: the first is its best photo. Kinds are in the order of
    their best photos, and every photo is in exactly one.
    """
    kinds = kinds_of(scorer.ret(rows), scorer.likeness.mean).numpy()
    # A stable sort keeps the photos of a kind in the order of the ranking.
    by_kind = np.argsort(kinds, kind="stable")
    sizes = np.bincount(kinds)
    return tuple(np.split(by_kind, np.cumsum(sizes)[:-1])) if len(kinds) else ()

"""The pool of a search: the photos that it may find. What is left out is left out before candidates are chosen."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from model.ranking import ScoredBy
from service.search.gallery.interface import Gallery, WordLead
from service.search.parts import QueryParts
from service.search.ranking import Rows


class Pool:
    """Photos of a gallery, by row and by cluster.

    Attributes:
        passing: (p,) whether a photo is in it; None for a pool of all photos. count: how many are.
        cluster_sizes: (c,) int64, how many of them each cluster has.
    """

    def __init__(self, scorer: Gallery, left_out: NDArray[np.bool_] | None = None) -> None:
        """left_out: (p,) whether a photo is not in the pool; None for a pool of all photos."""
        self._scorer = scorer
        self.passing = ~left_out if left_out is not None and left_out.any() else None
        if self.passing is None:
            self.count, self.cluster_sizes = scorer.photo_count, scorer.cluster_sizes
        else:
            before = np.concatenate([[0], np.cumsum(self.passing)])
            ends = np.cumsum(scorer.cluster_sizes)
            self.count = int(before[-1])
            self.cluster_sizes = (before[ends] - before[ends - scorer.cluster_sizes]).astype(np.int64)

    @cached_property
    def rows(self) -> Rows:
        """(m,) ascending: the photos."""
        return np.arange(self.count) if self.passing is None else np.flatnonzero(self.passing)

    def holds(self, rows: Rows) -> NDArray[np.bool_]:
        """(m,): whether these photos are in the pool."""
        return np.ones(len(rows), np.bool_) if self.passing is None else self.passing[rows]

    def near(self, parts: QueryParts, method: ScoredBy, count: int, lead: WordLead | None = None) -> Rows:
        """Photos of the pool among which the ``count`` best by [Ret] are; see ``Gallery.near_sketch``."""
        found = self._scorer.near_sketch(parts, method, count, self.passing, lead)
        return self.rows if found is None else found

    def near_photos(self, ret: torch.Tensor, count: int) -> Rows:
        """The same for those that look most like one of some photos, whose [Ret] (m, d) is given."""
        found = self._scorer.near_photos(ret, count, self.passing)
        return self.rows if found is None else found

    def of_cluster(self, cluster: int) -> Rows:
        """The photos of a cluster that are in the pool."""
        rows = self._scorer.rows_of(cluster)
        return rows[self.holds(rows)]

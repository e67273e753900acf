"""The pool of a search: the photos that it may find. What is left out is left out before candidates are chosen."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model import Tokens
from service.search.gallery.scorer import GalleryScorer
from service.search.ranking import Rows


class Pool:
    """Photos of a gallery, by row and by cluster.

    Attributes:
        passing: (p,) whether a photo is in it; None for a pool of all photos. count: how many are.
        cluster_sizes: (c,) int64, how many of them each cluster has.
    """

    def __init__(self, scorer: GalleryScorer, left_out: NDArray[np.bool_] | None = None) -> None:
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

    def near(self, sketch: Tokens, count: int) -> Rows:
        """Photos of the pool among which the ``count`` best by [Ret] are: all of them, but in a large gallery."""
        return self._near(sketch.ret, count)

    def near_photos(self, ret: torch.Tensor, count: int) -> Rows:
        """The same for those that look most like one of some photos, whose [Ret] (m, d) is given."""
        mean = self._scorer.gallery_ret.mean
        return self._near(F.normalize(ret.float(), dim=1) - mean.to(ret.device), count)

    def near_direction(self, direction: torch.Tensor, count: int) -> Rows:
        """The same for those whose normalised [Ret] lies farthest in a direction (d,)."""
        return self._near(direction[None], count)

    def _near(self, directions: torch.Tensor, count: int) -> Rows:
        found = self._scorer.gallery_ret.near(directions, count, self.passing)
        return self.rows if found is None else found

    def of_cluster(self, cluster: int) -> Rows:
        """The photos of a cluster that are in the pool."""
        rows = self._scorer.rows_of(cluster)
        return rows[self.holds(rows)]

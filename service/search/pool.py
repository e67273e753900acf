"""The pool of a search: the photos that it may find. What is left out is left out before candidates are chosen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.search.scorer import GalleryScorer, Rows


class Pool:
    """Photos of a gallery, by row and by cluster.

    Attributes:
        rows: (m,) ascending. cluster_sizes: (c,) int64, how many of them each cluster has.
    """

    def __init__(self, scorer: GalleryScorer, left_out: NDArray[np.bool_] | None = None) -> None:
        """left_out: (p,) whether a photo is not in the pool; None for a pool of all photos."""
        self._scorer = scorer
        self._left_out = left_out if left_out is not None and left_out.any() else None
        if self._left_out is None:
            self.rows: Rows = np.arange(scorer.photo_count)
            self.cluster_sizes = scorer.cluster_sizes
        else:
            self.rows = np.flatnonzero(~self._left_out)
            counted = np.bincount(scorer.clusters_of(self.rows), minlength=len(scorer.cluster_sizes))
            self.cluster_sizes = counted.astype(np.int64)

    def of_cluster(self, cluster: int) -> Rows:
        """The photos of a cluster that are in the pool."""
        rows = self._scorer.rows_of(cluster)
        return rows if self._left_out is None else rows[~self._left_out[rows]]

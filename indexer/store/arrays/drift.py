"""How well the clusters still fit.

Photos that come after k-means has run join the nearest cluster and move no centroid, so clusters fit less and less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer.store.arrays.clusters import Floats
from indexer.store.arrays.segment import BLOCK, RowRef, Rows

# Beyond so much of the distance at first, a search opens too many clusters that have nothing for it.
MOST_WIDENING = 1.1
# At twice the photos there should be 1.4 times the clusters, as their number is about the square root of the photos.
MOST_GROWTH = 2.0


@dataclass(frozen=True)
class Drift:
    """The photos that are shown now, compared with those that the clusters were made from.

    Attributes:
        clustered: how many photos were shown when k-means ran. distance: their mean distance to their centroids.
        photos, distance_now: the same for the photos that are shown now.
        automatic: whether the number of clusters was derived from the number of photos.
    """

    clustered: int
    distance: float
    photos: int
    distance_now: float
    automatic: bool

    @property
    def excessive(self) -> bool:
        """Whether the clusters should be made anew.

        That is so where the mean distance is more than MOST_WIDENING times what it was, or where the number of clusters
        is automatic and the photos are more than MOST_GROWTH times those that they were made from.
        """
        return self._outgrown or self.distance_now > MOST_WIDENING * self.distance

    def describe(self) -> str:
        """One sentence for people without a full stop, with advice where the drift is excessive."""
        line = f"the clusters were made for {_count(self.clustered)}; {self._fit()}"
        reason = "; there should be more clusters for so many" if self._outgrown else ""
        return f"{line}{reason}; run build --recluster" if self.excessive else line

    @property
    def _outgrown(self) -> bool:
        return self.automatic and self.photos > MOST_GROWTH * self.clustered

    def _fit(self) -> str:
        if (self.photos, self.distance_now) == (self.clustered, self.distance):
            return "the same photos are shown now"
        grown = f"now there are {self.photos}" if self.photos != self.clustered else "now there are others"
        wider = self.distance_now / self.distance - 1 if self.distance else float(self.distance_now > 0)
        percent = round(100 * abs(wider))
        if not percent:
            return f"{grown}, and the clusters fit them as well"
        where = "farther from" if wider > 0 else "nearer to"
        return f"{grown}, on average {percent} % {where} the middle of their cluster"


def _count(photos: int) -> str:
    return f"{photos} photo{'' if photos == 1 else 's'}"


def mean_distance(rows: Rows, refs: Sequence[RowRef], clusters: Sequence[int], centroids: Floats) -> float:
    """The mean Euclidean distance of embeddings to the centroids of their clusters; 0 for no rows.

    Args:
        refs: m rows. clusters: their clusters (m,). centroids: (c, e) float32.
    """
    total = 0.0
    for start in range(0, len(refs), BLOCK):
        block = rows.embeddings(refs[start : start + BLOCK])
        total += float(np.linalg.norm(block - centroids[list(clusters[start : start + BLOCK])], axis=1).sum())
    return total / len(refs) if refs else 0.0

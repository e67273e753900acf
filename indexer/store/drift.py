"""How well the clusters still fit: photos that come after the k-means join the nearest one, and move no centroid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer.store.clusters import Floats
from indexer.store.segment import BLOCK, RowRef, Rows

# Clusters that lie this much wider about their centroids hold more of what a search opens them for in vain.
MOST_WIDENING = 1.1
# About sqrt(photos) clusters rank as fast as one is scored; at twice the photos they are 1.4 times too few, and so on.
MOST_GROWTH = 2.0


@dataclass(frozen=True)
class Drift:
    """The photos now, against those that the clusters were made of.

    Attributes:
        clustered: photos shown when k-means ran. distance: their mean distance to their centroids then.
        photos, distance_now: the same for the photos shown now.
        automatic: whether the number of clusters followed from the number of photos.
    """

    clustered: int
    distance: float
    photos: int
    distance_now: float
    automatic: bool

    @property
    def excessive(self) -> bool:
        """Beyond the bounds: distances over MOST_WIDENING times those then, or photos over MOST_GROWTH times."""
        grown = self.automatic and self.photos > MOST_GROWTH * self.clustered
        return grown or self.distance_now > MOST_WIDENING * self.distance

    def describe(self) -> str:
        """A line for people; with advice where the bounds are passed."""
        told = (
            f"clusters were made of {self.clustered} photos, {self.distance:.3f} from their centroids; "
            f"now {self.photos}, {self.distance_now:.3f}"
        )
        return f"{told}; run build --recluster" if self.excessive else told


def mean_distance(rows: Rows, refs: Sequence[RowRef], clusters: Sequence[int], centroids: Floats) -> float:
    """Mean Euclidean distance of the rows' embeddings to the centroids, (c, e), of their clusters; 0 for no rows."""
    total = 0.0
    for start in range(0, len(refs), BLOCK):
        block = rows.gather(refs[start : start + BLOCK], "embeddings")
        total += float(np.linalg.norm(block - centroids[list(clusters[start : start + BLOCK])], axis=1).sum())
    return total / len(refs) if refs else 0.0

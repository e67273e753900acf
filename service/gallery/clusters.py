"""Holds the clusters of a gallery, with which a query is compared first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer import IndexRefused
from model.engine import Floats, Tokens, unit
from service.gallery.candidates import Rows, Scores

# A gallery with this many clusters has a second level of clusters above them, which finds those that a query is
# compared with: sorting all of them would take longer than scoring photos.
MANY_CLUSTERS = 100_000
# Clusters found for each part of a query, 64 times as many as are opened, and clusters above that are opened for it.
NEAR_CLUSTERS, OPENED_ABOVE = 4096, 64


@dataclass(frozen=True)
class Clusters:
    """The clusters of a gallery, whose photos lie one cluster after the other.

    Attributes:
        sizes: (c,) int64, photos in each. vectors: (c, d) float32, their mean vectors.
        features, positions: of their mean tokens, (c, n, d) and (c, n-1).
        embeddings: (c, e) float32, their centroids by CLIP; None if they were not made by it.
    """

    sizes: NDArray[np.int64]
    vectors: Floats
    features: NDArray[np.floating]
    positions: NDArray[np.uint8]
    embeddings: Floats | None = None

    @cached_property
    def ends(self) -> Rows:
        """(c,): the row after each cluster's last photo."""
        return np.cumsum(self.sizes)

    def of(self, rows: Rows) -> NDArray[np.int64]:
        """Returns the clusters of these photos."""
        return np.searchsorted(self.ends, rows, side="right")

    @cached_property
    def mean(self) -> Floats:
        """(d,): the mean of all vectors of photos."""
        weights = self.sizes / max(1, self.sizes.sum())
        return np.asarray(weights @ self.vectors, np.float32)

    @cached_property
    def _above(self) -> faiss.Index:
        """The second level: about the square root of the clusters hold these as clusters hold photos."""
        above = faiss.index_factory(
            self.vectors.shape[1], f"IVF{round(math.sqrt(len(self.sizes)))},Flat", faiss.METRIC_INNER_PRODUCT
        )
        directions = unit(self.vectors)
        above.train(directions)
        above.add(directions)
        faiss.extract_index_ivf(above).nprobe = OPENED_ABOVE
        return above

    def near(self, directions: Floats) -> NDArray[np.int64]:
        """Returns the clusters that are worth comparing with directions (q, d), ascending: all if they are few."""
        if len(self.sizes) < MANY_CLUSTERS:
            return np.arange(len(self.sizes))
        found = np.unique(self._above.search(np.ascontiguousarray(directions, np.float32), NEAR_CLUSTERS)[1])
        return found[found >= 0]

    def by_clip(self, vector: Floats) -> Scores:
        """Multiplies a vector of CLIP (e,) with the centroids by CLIP: (c,). Raises IndexRefused if lengths differ."""
        assert self.embeddings is not None
        check_length(vector, self.embeddings.shape[1])
        return (self.embeddings @ vector).astype(np.float32)

    def vectors_of(self, clusters: NDArray[np.int64]) -> Floats:
        """Returns the mean vectors of these clusters, ascending; not copied if they are all."""
        return self.vectors if len(clusters) == len(self.sizes) else self.vectors[clusters]

    def tokens(self, clusters: NDArray[np.int64]) -> Tokens:
        """Returns the tokens of these clusters."""
        return Tokens(self.features[clusters], self.positions[clusters])


def check_length(vector: Floats, length: int) -> None:
    """Raises IndexRefused if CLIP vectors of the index have another length than its model gives, (e,)."""
    if vector.shape != (length,):
        raise IndexRefused(
            f"the index has CLIP vectors of length {length}, and its model gives {len(vector)}; delete the index "
            "folder and build again."
        )

"""The rows of a gallery: one cluster after the other, in each cluster by id."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import PhotoEntry
from model import Matcher, Tokens
from service.schemas import Cluster
from service.search.parts import QueryParts
from service.search.ranking import Ids, Rows, best_first


class GalleryRows:
    """The photos of a gallery by row and by cluster.

    Attributes:
        ids: (p,) int64, of the photos by row.
        cluster_sizes: (c,) int64, photos in each cluster.
    """

    def __init__(
        self, ids: Ids, cluster_sizes: NDArray[np.int64], centroid_ret: torch.Tensor, matcher: Matcher
    ) -> None:
        """centroid_ret: (c, d) float32, the means of the photos' L2-normalised [Ret]."""
        self.ids, self.cluster_sizes = ids, cluster_sizes
        self._ends = np.cumsum(cluster_sizes)
        self._centroid_ret = Tokens.of_ret(centroid_ret.to(matcher.device))
        self._matcher = matcher

    @property
    def photo_count(self) -> int:
        """Photos in the gallery: their rows are 0 to one less."""
        return len(self.ids)

    def rows_of(self, cluster: int) -> Rows:
        """(m,): all photos of a cluster."""
        end = int(self._ends[cluster])
        return np.arange(end - int(self.cluster_sizes[cluster]), end)

    def clusters_of(self, rows: Rows) -> NDArray[np.int64]:
        """(m,): the clusters that these photos are in."""
        return np.searchsorted(self._ends, rows, side="right")

    def row_of(self, photo: PhotoEntry) -> int:
        """Where a photo is."""
        rows = self.rows_of(photo.cluster)
        return int(rows[np.searchsorted(self.ids[rows], photo.id)])

    def clusters_by_ret(self, parts: QueryParts, clusters: NDArray[np.int64]) -> tuple[Cluster, ...]:
        """These clusters with the scores of their centroids by [Ret], best first, ties by id."""
        if not len(clusters):
            return ()
        scores = self._matcher.scores(parts.sketch, self._centroid_ret[torch.from_numpy(clusters)], "ret")[0].numpy()
        order = best_first(clusters, scores).tolist()
        sizes = self.cluster_sizes[clusters]
        return tuple(Cluster(id=int(clusters[n]), score=float(scores[n]), size=int(sizes[n])) for n in order)

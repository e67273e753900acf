"""How the photos and clusters of several shards are counted as those of one gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from indexer import EmbedderEntry
from service.search import Ids, Rows
from service.sharding.shard import Overview


class Layout:
    """The photos of all shards that are there, one shard after the other, each in its own order.

    A shard that is missing has no photos, and its clusters are empty: so the others keep their numbers.

    Attributes:
        overviews: of the shards; None for those that have never been there.
        asked: the numbers of the shards that have photos here.
        ids: (p,), by row. cluster_sizes: (c,) int64. centroid_ret: (c, d) float32.
        mean: (d,) float32, the mean of all normalised [Ret].
    """

    def __init__(self, overviews: Sequence[Overview | None], missing: frozenset[int]) -> None:
        """missing: numbers of the shards that do not answer now."""
        self.overviews = tuple(overviews)
        there = [None if number in missing else one for number, one in enumerate(overviews)]
        photos = [0 if one is None else len(one.ids) for one in there]
        clusters = [0 if one is None else len(one.cluster_sizes) for one in overviews]
        self._ends, self._cluster_ends = np.cumsum(photos), np.cumsum(clusters)
        self._starts, self._cluster_starts = self._ends - photos, self._cluster_ends - clusters
        self.asked = tuple(number for number, count in enumerate(photos) if count)
        known = [one for one in overviews if one is not None]
        # Four bytes each: these are the one array of this process that grows with the photos.
        ids = np.concatenate([np.empty(0, np.int32), *(one.ids.astype(np.int32) for one in there if one is not None)])
        self.ids = cast(Ids, ids)
        sizes = [
            one.cluster_sizes if here is not None else np.zeros_like(one.cluster_sizes)
            for one, here in zip(overviews, there, strict=True)
            if one is not None
        ]
        self.cluster_sizes: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *sizes])
        width = known[0].origin.width if known else 0
        self.centroid_ret: NDArray[np.float32] = np.concatenate(
            [np.empty((0, width), np.float32), *(one.centroid_ret for one in known)]
        )
        total = np.sum([np.zeros(width), *(one.ret_sum for one in there if one is not None)], axis=0)
        self.mean: NDArray[np.float32] = (total / max(1, len(self.ids))).astype(np.float32)

    @property
    def embedder(self) -> EmbedderEntry:
        """What the photos of all shards were clustered by."""
        return self._known().embedder

    @property
    def tokens_kept(self) -> int:
        """Of each photo."""
        return self._known().origin.tokens

    def _known(self) -> Overview:
        return next(one for one in self.overviews if one is not None)

    def clusters(self, shard: int) -> slice:
        """The clusters of a shard."""
        return slice(int(self._cluster_starts[shard]), int(self._cluster_ends[shard]))

    def rows(self, shard: int) -> slice:
        """The photos of a shard."""
        return slice(int(self._starts[shard]), int(self._ends[shard]))

    def shard_of_cluster(self, cluster: int) -> int:
        """The shard that a cluster is in."""
        return int(np.searchsorted(self._cluster_ends, cluster, side="right"))

    def by_shard(self, rows: Rows) -> Iterator[tuple[int, NDArray[np.int64], Rows]]:
        """For each shard that has some of these photos: its number, which of them these are, and their rows there."""
        shards = np.searchsorted(self._ends, rows, side="right")
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            yield shard, places, rows[places] - self._starts[shard]

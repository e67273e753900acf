"""Which cluster each photo is in: clusters made anew by k-means, or the live ones, which new photos join."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.building.live_state import LiveClusters
from indexer.store import IndexedContent, RowRef, Rows, assign, cluster, read_centroids


@dataclass(frozen=True)
class Clustering:
    """The cluster of every shown photo.

    Attributes:
        centroids: (c, e) float32. cluster_of: each photo's cluster, by content hash.
        to_write: the content hashes whose rows go into a new segment.
        asked: how many clusters the user asked for; None for about sqrt(photos).
        kept: the live generation's clusters, where they stay; None where all clusters are new.
    """

    centroids: npt.NDArray[np.float32]
    cluster_of: Mapping[str, int]
    to_write: frozenset[str]
    asked: int | None
    kept: LiveClusters | None


def new_clusters(
    ids: Mapping[str, int], refs: Mapping[str, RowRef], rows: Rows, count: int, asked: int | None
) -> Clustering:
    """Cluster all photos by k-means. All rows are written again, since a segment's rows are ordered by cluster.

    Args:
        ids: the shown photos' ids, refs: their rows; both by content hash. count: how many clusters, 1..photos.
    """
    # By id, because the points that k-means starts from depend on the order.
    contents = sorted(ids, key=ids.__getitem__)
    centroids, clusters = cluster(rows.embeddings([refs[content] for content in contents]), count)
    cluster_of = dict(zip(contents, clusters.tolist(), strict=True))
    return Clustering(centroids, cluster_of, frozenset(contents), asked, kept=None)


def joined_clusters(
    ids: Mapping[str, int],
    refs: Mapping[str, RowRef],
    rows: Rows,
    kept: LiveClusters,
    contents: Mapping[str, IndexedContent],
) -> Clustering:
    """Keep the live clusters; photos that are new join the nearest one.

    Args:
        ids, refs, rows: as for ``new_clusters``. kept: the live clusters. contents: where the live index has what.
    """
    centroids = read_centroids(kept.folder / "clusters.faiss", len(kept.members), rows.take([]).embeddings.shape[1])
    cluster_of = {content: contents[content].cluster for content in ids if content in contents}
    new = sorted(ids.keys() - cluster_of.keys(), key=ids.__getitem__)
    if new:
        nearest = assign(rows.embeddings([refs[content] for content in new]), centroids)
        cluster_of |= dict(zip(new, nearest.tolist(), strict=True))
    return Clustering(centroids, cluster_of, frozenset(new), kept.asked, kept)

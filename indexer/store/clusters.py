"""Makes clusters of the gallery by k-means over the photos' embeddings, with their tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from sketch_search.indexer.store.rows import (
    BLOCK,
    NO_ROWS,
    TOKEN_FILES,
    SegmentReader,
    SegmentRows,
    map_array,
    write_array,
)
from sketch_search.model.engine import Floats

# The centroids found by k-means, (c, e) float32.
CLUSTERS_FILE = "clusters.npy"
SEED = 1234
ITERATIONS = 25
# The most patches of a grid, since a position is kept in one byte. Patches that a smaller grid does not have are in no
# photo, and so never chosen.
MAX_PATCHES = 256
# The most photos for each cluster that k-means trains on, as in FAISS. More would hardly move a centroid, and cost
# time in every iteration.
POINTS_PER_CLUSTER = 256
# The stubs of faiss-cpu lack the functions of faiss-gpu.
_faiss: Any = faiss
# Rows that are assigned to clusters at a time: 12 MiB of vectors of the default network.
_ASSIGNED = 1 << 14


def default_clusters(photos: int) -> int:
    """Returns about sqrt(photos), since ranking all clusters then costs about as much as scoring one cluster."""
    return max(1, round(math.sqrt(photos)))


def training_points(points: int, count: int) -> npt.NDArray[np.int64]:
    """Chooses the points that k-means is trained on, in that order. FAISS would choose the same, of all in memory."""
    most = count * min(math.ceil(points / count), POINTS_PER_CLUSTER)
    if points <= most:
        return np.arange(points)
    order = np.empty(points, np.int32)
    faiss.rand_perm(faiss.swig_ptr(order), points, SEED)  # type: ignore[attr-defined]
    return order[:most].astype(np.int64)


def trained(points: Floats, count: int) -> Floats:
    """Computes the centroids (count, e) of points (m, e) of unit length by k-means; every run gives the same."""
    width = points.shape[1]
    per_cluster = math.ceil(len(points) / count)
    kmeans = faiss.Kmeans(
        width,
        count,
        niter=ITERATIONS,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=per_cluster,
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(np.ascontiguousarray(points))
    return np.asarray(kmeans.centroids, np.float32).reshape(count, width)


def assign(embeddings: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """Finds each embedding's nearest centroid by Euclidean distance, (m,) int64; of equal ones the lower number."""
    index: faiss.Index = faiss.IndexFlatL2(centroids.shape[1])
    if faiss.get_num_gpus() > 0:
        index = _faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(centroids))
    _, nearest = index.search(np.ascontiguousarray(embeddings), 1)
    return np.asarray(nearest[:, 0], np.int64)


def nearest(reader: SegmentReader, rows: SegmentRows, centroids: Floats) -> npt.NDArray[np.int64]:
    """Finds the nearest centroid of each of m rows, (m,), without loading all vectors into memory."""
    parts = (rows[start : start + _ASSIGNED] for start in range(0, len(rows), _ASSIGNED))
    return np.concatenate([assign(reader.clustered_by(part), centroids) for part in parts])


@dataclass(frozen=True)
class Centroids:
    """What represents c clusters: ret (c, d) float32, the mean of their photos' vectors.

    features: (c, n, d) float16, the mean [Ret] in row 0; positions: (c, n-1) uint8; None for one global vector.
    """

    ret: Floats
    features: npt.NDArray[np.float16] | None = None
    positions: npt.NDArray[np.uint8] | None = None

    def named(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {"centroid_ret": self.ret, "centroid_tokens": self.features, "centroid_positions": self.positions}
        return {name: array for name, array in arrays.items() if array is not None}

    @staticmethod
    def of_photos(reader: SegmentReader, rows: SegmentRows) -> Centroids:
        """Computes the centroid of one cluster from its photos, in id order."""
        ret = reader.take(rows, ("vectors",)).vectors().mean(axis=0)[None]
        if "tokens" not in reader.names:
            return Centroids(ret)
        cells, features = mean_tokens(reader, rows)
        return Centroids(ret, features[None].astype(np.float16), cells[None].astype(np.uint8))

    @staticmethod
    def joined(parts: Sequence[Centroids]) -> Centroids:
        return Centroids(*map(np.concatenate, zip(*(part.named().values() for part in parts), strict=True)))

    @staticmethod
    def open(folder: Path, count: int, width: int, tokens: int) -> Centroids:
        """Maps the centroids of a generation into memory. Raises IndexRefused as ``map_array``."""
        ret = map_array(folder / "centroid_ret.npy", (count, width))
        if tokens == 1:
            return Centroids(ret)
        features = map_array(folder / "centroid_tokens.npy", (count, tokens, width), np.float16)
        return Centroids(ret, features, map_array(folder / "centroid_positions.npy", (count, tokens - 1), np.uint8))

    def write(self, folder: Path) -> None:
        for name, array in self.named().items():
            write_array(folder / f"{name}.npy", array)

    def of_cluster(self, number: int) -> Centroids:
        return Centroids(*(array[number : number + 1] for array in self.named().values()))


def mean_tokens(reader: SegmentReader, rows: SegmentRows) -> tuple[npt.NDArray[np.int64], Floats]:
    """Computes a cluster's tokens, at the k cells that most of its photos kept, lower ones first if equal.

    Returns the cells (k,), ascending, and features (1 + k, d) float32: mean [Ret], and the means of these tokens.
    """
    none = reader.take(NO_ROWS, TOKEN_FILES).arrays
    width, patches_kept = none["tokens"].shape[2], none["positions"].shape[1]
    ret = np.zeros(width, np.float64)
    sums = np.zeros((MAX_PATCHES, width), np.float32)
    counts = np.zeros(MAX_PATCHES, np.int64)
    for start in range(0, len(rows), BLOCK):
        block = reader.take(rows[start : start + BLOCK], TOKEN_FILES)
        features = block.features()
        ret += features[:, 0].sum(axis=0, dtype=np.float64)
        for photo, kept in zip(features[:, 1:], block.patches(), strict=True):
            # A photo's patches are all different, so this adds the token of each once.
            sums[kept] += photo
            counts[kept] += 1
    chosen = np.sort(np.argsort(-counts, kind="stable")[:patches_kept])
    means = sums[chosen] / counts[chosen, None].astype(np.float32)
    first = (ret / len(rows)).astype(np.float32)[None]
    return chosen, np.concatenate([first, np.asarray(means, np.float32)])

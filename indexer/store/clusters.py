"""Clusters of the gallery: seeded k-means over the embeddings, and what stands for a cluster in a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import REPAIR, IndexRefused
from indexer.store.files import write_atomically
from indexer.store.segment import BLOCK, RowRef, Rows

Floats = npt.NDArray[np.float32]
SEED = 1234
ITERATIONS = 25
# Of a patch grid: positions are kept in one byte. What a smaller grid lacks counts 0 and is never chosen.
MOST_CELLS = 256
# More points than this move no centroid visibly and cost time in every iteration.
_TRAINING_POINTS = 1_000_000


def default_clusters(photos: int) -> int:
    """About the square root: then ranking the clusters costs as much as scoring one of them."""
    return max(1, round(math.sqrt(photos)))


def cluster(embeddings: Floats, count: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Plain k-means of L2-normalised embeddings, the same on every run.

    Args:
        embeddings: (m, e) float32. count: clusters wanted, 1..m.

    Returns:
        centroids (c, e) float32 and assignment (m,) int64 in 0..c-1; clusters that ended empty are dropped, c <= count.
    """
    points, width = embeddings.shape
    per_cluster = math.ceil(min(points, _TRAINING_POINTS) / count)
    kmeans = faiss.Kmeans(
        width,
        count,
        niter=ITERATIONS,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=per_cluster,
        verbose=False,
    )
    kmeans.train(np.ascontiguousarray(embeddings))
    centroids = np.asarray(kmeans.centroids, np.float32).reshape(count, width)
    nearest = assign(embeddings, centroids)
    kept, assignment = np.unique(nearest, return_inverse=True)
    return centroids[kept], assignment.astype(np.int64)


def assign(embeddings: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """(m,): the nearest centroid of each embedding by Euclidean distance, ties to the lower number."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids))
    # Blocks of one fixed size: the library computes small and large batches by different kernels, and the same photo
    # must join the same cluster whatever comes with it.
    found = [_nearest(index, embeddings[start : start + BLOCK]) for start in range(0, len(embeddings), BLOCK)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _nearest(index: faiss.IndexFlatL2, block: Floats) -> npt.NDArray[np.int64]:
    padded = np.zeros((BLOCK, block.shape[1]), np.float32)
    padded[: len(block)] = block
    _, nearest = index.search(padded, 1)
    return np.asarray(nearest[: len(block), 0], np.int64)


def write_centroids(path: Path, centroids: Floats) -> None:
    """Write the k-means centroids, (c, e), as a FAISS index."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids))
    write_atomically(path, faiss.serialize_index(index).tobytes())


def read_centroids(path: Path) -> Floats:
    """The k-means centroids, (c, e) float32.

    Raises:
        IndexRefused: the file is missing or damaged.
    """
    try:
        index = faiss.deserialize_index(np.frombuffer(path.read_bytes(), np.uint8))
        return np.asarray(index.reconstruct_n(0, index.ntotal), np.float32)
    except (OSError, RuntimeError) as error:
        raise IndexRefused(f"{path} cannot be read; {REPAIR}.") from error


@dataclass(frozen=True)
class Centroids:
    """What stands for c clusters in a search.

    Attributes:
        ret: (c, d) float32, the mean of the photos' L2-normalised [Ret].
        tokens: (c, n, d) float16, positions: (c, n-1) uint8; None for networks with a global vector only.
    """

    ret: Floats
    tokens: npt.NDArray[np.float16] | None
    positions: npt.NDArray[np.uint8] | None

    @staticmethod
    def empty(count: int, rows: Rows) -> Centroids:
        """Room for ``count`` clusters."""
        like = rows.take([])
        ret = np.zeros((count, *like.ret.shape[1:]), np.float32)
        if like.tokens is None or like.positions is None:
            return Centroids(ret, None, None)
        tokens = np.zeros((count, *like.tokens.shape[1:]), np.float16)
        return Centroids(ret, tokens, np.zeros((count, *like.positions.shape[1:]), np.uint8))

    def copy(self, number: int, old: Centroids) -> None:
        """Fill in cluster ``number`` from another generation's."""
        self.ret[number] = old.ret[number]
        if self.tokens is not None and self.positions is not None:
            assert old.tokens is not None
            assert old.positions is not None
            self.tokens[number], self.positions[number] = old.tokens[number], old.positions[number]

    def compute(self, number: int, rows: Rows, refs: Sequence[RowRef]) -> None:
        """Fill in cluster ``number`` from its photos, in id order."""
        raw = rows.gather(refs, "ret")
        self.ret[number] = normalised(raw).mean(axis=0, dtype=np.float32)
        if self.tokens is not None and self.positions is not None:
            kept, patches = mean_tokens(rows, refs)
            self.positions[number] = kept
            self.tokens[number, 0] = raw.mean(axis=0, dtype=np.float32)
            self.tokens[number, 1:] = patches


def mean_tokens(rows: Rows, refs: Sequence[RowRef]) -> tuple[npt.NDArray[np.int64], Floats]:
    """A cluster's patch tokens: at every cell of the grid the mean over the photos that kept it.

    Args:
        refs: the cluster's photos.

    Returns:
        the n-1 cells kept most often, ties to the lower one, ascending; and (n-1, d) float32 there.
    """
    _, tokens, width = rows.features([]).shape
    sums = np.zeros((MOST_CELLS, width), np.float32)
    counts = np.zeros(MOST_CELLS, np.int64)
    for start in range(0, len(refs), BLOCK):
        block = refs[start : start + BLOCK]
        patches = rows.features(block)[:, 1:]
        for photo, kept in zip(patches, rows.gather(block, "positions"), strict=True):
            # Positions are distinct within a photo, so this adds each token once.
            sums[kept] += photo
            counts[kept] += 1
    chosen = np.sort(np.argsort(-counts, kind="stable")[: tokens - 1])
    means = sums[chosen] / counts[chosen, None].astype(np.float32)
    return chosen, np.asarray(means, np.float32)


def normalised(vectors: npt.NDArray[Any]) -> Floats:
    """(m, d) float32 of unit length; a zero vector stays zero."""
    vectors = vectors.astype(np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)

"""Keeps what represents the clusters of an index, and finds the nearest clusters of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketch_search.indexer.store.rows import BLOCK, TOKEN_FILES, SegmentReader, SegmentRows, map_array, write_array
from sketch_search.model.engine import Floats, Tokens
from sketch_search.model.search.clusters import assign, mean_tokens

# The centroids found by k-means, (c, e) float32.
CLUSTERS_FILE = "clusters.npy"
# Rows that are assigned to clusters at a time: 12 MiB of vectors of the default network.
_ASSIGNED = 1 << 14


def nearest(reader: SegmentReader, rows: SegmentRows, centroids: Floats) -> npt.NDArray[np.int64]:
    """Finds the nearest centroid of each of m rows, (m,), without loading all vectors into memory."""
    parts = (rows[start : start + _ASSIGNED] for start in range(0, len(rows), _ASSIGNED))
    return np.concatenate([assign(reader.read_clustered(part), centroids) for part in parts])


@dataclass(frozen=True)
class Centroids:
    """What represents c clusters: ret (c, d) float32, the mean of their photos' vectors.

    features: (c, n, d) float16, the mean [Ret] in row 0; positions: (c, n-1) uint8; None for one global vector.
    """

    ret: Floats
    features: npt.NDArray[np.float16] | None = None
    positions: npt.NDArray[np.uint8] | None = None

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {"centroid_ret": self.ret, "centroid_tokens": self.features, "centroid_positions": self.positions}
        return {name: array for name, array in arrays.items() if array is not None}

    @staticmethod
    def of_photos(reader: SegmentReader, rows: SegmentRows) -> Centroids:
        """Computes the centroid of one cluster from its photos, in id order."""
        ret = reader.take(rows, ("vectors",)).vectors().mean(axis=0)[None]
        if "tokens" not in reader.names:
            return Centroids(ret)
        parts = (reader.take(rows[start : start + BLOCK], TOKEN_FILES) for start in range(0, len(rows), BLOCK))
        mean = mean_tokens(Tokens(part.features(), part.patches()) for part in parts)
        return Centroids(ret, mean.features.astype(np.float16), mean.positions.astype(np.uint8))

    @staticmethod
    def join(parts: Sequence[Centroids]) -> Centroids:
        return Centroids(*map(np.concatenate, zip(*(part.arrays().values() for part in parts), strict=True)))

    @staticmethod
    def open(folder: Path, count: int, width: int, tokens: int) -> Centroids:
        """Maps the centroids of a generation into memory. Raises IndexRefused as ``map_array``."""
        ret = map_array(folder / "centroid_ret.npy", (count, width))
        if tokens == 1:
            return Centroids(ret)
        features = map_array(folder / "centroid_tokens.npy", (count, tokens, width), np.float16)
        return Centroids(ret, features, map_array(folder / "centroid_positions.npy", (count, tokens - 1), np.uint8))

    def write(self, folder: Path) -> None:
        for name, array in self.arrays().items():
            write_array(folder / f"{name}.npy", array)

    def of_cluster(self, number: int) -> Centroids:
        return Centroids(*(array[number : number + 1] for array in self.arrays().values()))

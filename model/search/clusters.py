"""Clusters photos by k-means, as FAISS does it, and holds their vectors cluster after cluster: an inverted file."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from sketch_search.model.engine import Floats, Numbers, Tokens, widen

SEED = 1234
ITERATIONS = 25
# The most patches of a grid, since an index keeps a position in one byte; those beyond a smaller grid are in no photo.
MAX_PATCHES = 256
# The most photos for each cluster that k-means trains on, as in FAISS: more would hardly move a centroid.
POINTS_PER_CLUSTER = 256
# The number of vectors that are compared at a time: some 12 MiB of float32 with the default network.
_BLOCK = 1 << 14

Mask = npt.NDArray[np.bool_]


def unite(parts: Sequence[Numbers]) -> Numbers:
    """Returns the members of sets of numbers from 0, ascending: NumPy's ``unique`` takes many times as long."""
    members = np.concatenate(parts)
    held = np.zeros(members.max(initial=-1) + 1, np.bool_)
    held[members] = True
    return np.flatnonzero(held)


def default_clusters(photos: int) -> int:
    """Returns about sqrt(photos), since ranking all clusters then costs about as much as scoring one cluster."""
    return max(1, round(math.sqrt(photos)))


def training_points(points: int, count: int) -> npt.NDArray[np.int64]:
    """Chooses the points that k-means is trained on, in that order. FAISS would choose the same, of all in memory."""
    most = count * min(math.ceil(points / count), POINTS_PER_CLUSTER)
    if points <= most:
        return np.arange(points)
    import faiss

    order = np.empty(points, np.int32)
    faiss.rand_perm(faiss.swig_ptr(order), points, SEED)  # type: ignore[attr-defined]
    return order[:most].astype(np.int64)


def train_centroids(points: Floats, count: int) -> Floats:
    """Computes the centroids (count, e) of points (m, e) of unit length by k-means; every run gives the same."""
    import faiss

    settings: dict[str, Any] = {"niter": ITERATIONS, "seed": SEED, "gpu": faiss.get_num_gpus() > 0}
    settings |= {"min_points_per_centroid": 1, "max_points_per_centroid": math.ceil(len(points) / count)}
    kmeans = faiss.Kmeans(points.shape[1], count, **settings)
    kmeans.train(np.ascontiguousarray(points))
    return np.asarray(kmeans.centroids, np.float32).reshape(count, -1)


def assign(embeddings: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """Finds each embedding's nearest centroid by Euclidean distance, (m,) int64; of equal ones the lower number."""
    import faiss

    index: faiss.Index = faiss.IndexFlatL2(centroids.shape[1])
    if faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(centroids))
    _, nearest = index.search(np.ascontiguousarray(embeddings), 1)
    return np.asarray(nearest[:, 0], np.int64)


def cluster(vectors: Floats, count: int) -> npt.NDArray[np.int64]:
    """Clusters vectors (p, e) of unit length as an index does: (p,) the cluster of each, none of them empty."""
    labels = assign(vectors, train_centroids(vectors[training_points(len(vectors), count)], count))
    return np.unique(labels, return_inverse=True)[1]


def mean_tokens(blocks: Iterable[Tokens]) -> Tokens:
    """Computes a cluster's mean tokens, a batch of one: at the k cells that most photos kept, lower ones first."""
    photos, kept, ret = 0, 0, np.zeros(0)
    sums, counts = np.empty((MAX_PATCHES, 0), np.float32), np.zeros(MAX_PATCHES, np.int64)
    for block in blocks:
        if not photos:
            kept, width = block.positions.shape[1], block.features.shape[2]
            ret, sums = np.zeros(width), np.zeros((MAX_PATCHES, width), np.float32)
        photos += len(block)
        ret += block.ret.sum(axis=0, dtype=np.float64)
        for photo, cells in zip(block.patches, block.positions, strict=True):
            # A photo's patches are all different, so this adds the token of each once.
            sums[cells] += photo
            counts[cells] += 1
    chosen = np.sort(np.argsort(-counts, kind="stable")[:kept])
    means = sums[chosen] / counts[chosen, None].astype(np.float32)
    first = (ret / photos).astype(np.float32)[None]
    return Tokens(np.concatenate([first, np.asarray(means, np.float32)])[None], chosen[None])


@cache
def _quantizer(width: int) -> Any:
    """FAISS's reader of float16 vectors. It is kept, because making one takes a fiftieth of a search."""
    faiss: Any = import_module("faiss")
    return faiss.ScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16)


class Vectors:
    """Unit vectors of p photos, one cluster after the other, by which they are numbered here. Threads may share it.

    sizes: (c,) photos of each cluster. centroids: (c, d) the mean of each cluster's vectors.
    """

    def __init__(self, values: npt.NDArray[Any], sizes: Numbers, centroids: Floats) -> None:
        """Keeps ``values``: (r, d) float16, those of the photos first, mapped into memory and read when needed."""
        self.sizes, self.centroids = sizes, centroids
        self.count, self.width = int(sizes.sum()), int(values.shape[1])
        self._array: npt.NDArray[Any] | None = values
        self._ends = np.cumsum(sizes)

    @property
    def _values(self) -> npt.NDArray[Any]:
        if self._array is None:
            raise ValueError("the index is closed")
        return self._array

    def close(self) -> None:
        """Closes the file, even if something still refers to this object."""
        self._array = None

    def of(self, rows: Numbers | None = None) -> Floats:
        """Reads the vectors of these photos, or of all photos: (m, d) float32."""
        return widen(self._values[: self.count] if rows is None else self.kept(rows))

    def kept(self, rows: Numbers) -> npt.NDArray[np.float16]:
        """Reads the vectors of these photos as they are kept, (m, d)."""
        return np.asarray(self._values[rows])

    def rows_of(self, clusters: int | Numbers) -> Numbers:
        """Returns the photos of one or several clusters: (m,) ascending."""
        parts = [np.arange(part.start, part.stop) for part in self._opened(np.unique(clusters))]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def count_passing(self, mask: Mask) -> Numbers:
        """Counts the photos of each cluster that pass, (c,). mask: (p,) whether a photo passes."""
        before = np.concatenate([[0], np.cumsum(mask)])
        return np.asarray(before[self._ends] - before[self._ends - self.sizes])

    def near(self, directions: Floats, count: int, mask: Mask | None, clusters: Numbers) -> Numbers:
        """Finds ``count`` photos with the highest products for each of directions (q, d): (m,) ascending.

        mask: (p,) whether a photo may be found; None: all may. clusters: (n,) ascending, those that are opened.
        """
        return unite([self._near(direction, count, mask, clusters) for direction in directions])

    def _near(self, direction: Floats, count: int, mask: Mask | None, clusters: Numbers) -> Numbers:
        if count >= self.sizes[clusters].sum():
            rows = self.rows_of(clusters)
            return rows if mask is None else rows[mask[rows]]
        # Not imported above, since a search of few photos does without. Its stubs lack scanners.
        faiss: Any = import_module("faiss")
        # FAISS multiplies the float16 values in place. Converting them first takes many times as long.
        selector = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        scanner = _quantizer(self.width).select_InvertedListScanner(
            faiss.METRIC_INNER_PRODUCT, None, False, selector, False
        )
        try:
            query = np.ascontiguousarray(direction, np.float32)
            scanner.set_query(faiss.swig_ptr(query))
            products, rows = np.full(count, -np.inf, np.float32), np.full(count, -1, np.int64)
            best, codes = (faiss.swig_ptr(products), faiss.swig_ptr(rows), count), self._values.view(np.uint8)
            for part in self._opened(clusters):
                numbers = np.arange(part.start, part.stop)
                scanner.scan_codes(len(numbers), faiss.swig_ptr(codes[part]), faiss.swig_ptr(numbers), *best)
        finally:
            # It has no owner, so Python would never free it.
            scanner.__swig_destroy__(scanner)
        return rows[rows >= 0]

    def _opened(self, clusters: Numbers) -> Iterator[slice]:
        """Yields the rows of these clusters, ascending, in contiguous pieces that are not too large."""
        gaps = np.flatnonzero(np.diff(clusters) > 1) + 1
        for run in np.split(clusters, gaps) if len(clusters) else ():
            first, end = int(self._ends[run[0]] - self.sizes[run[0]]), int(self._ends[run[-1]])
            for start in range(first, end, _BLOCK):
                yield slice(start, min(start + _BLOCK, end))

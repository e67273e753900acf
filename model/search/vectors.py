"""Holds photos' vectors, one cluster after the other: an inverted file, of which a search opens some clusters."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from sketch_search.model.engine import Floats, Numbers, widen

# The number of vectors that are compared at a time: some 12 MiB of float32 with the default network.
_BLOCK = 1 << 14

Mask = npt.NDArray[np.bool_]


def unite(parts: Sequence[Numbers]) -> Numbers:
    """Returns the members of sets, ascending: of a single one, NumPy's ``unique`` takes several times as long."""
    return np.sort(parts[0]) if len(parts) == 1 else np.unique(np.concatenate(parts))


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

    def passing(self, mask: Mask) -> Numbers:
        """Counts the photos of each cluster that pass, (c,). mask: (p,) whether a photo passes."""
        before = np.concatenate([[0], np.cumsum(mask)])
        found: Numbers = before[self._ends] - before[self._ends - self.sizes]
        return found

    def near(self, directions: Floats, count: int, mask: Mask | None, clusters: Numbers) -> Numbers:
        """Finds ``count`` photos with the highest products for each of directions (q, d): (m,) ascending.

        mask: (p,) whether a photo may be found; None: all may. clusters: (n,) ascending, those that are opened.
        """
        return unite([self._near(direction, count, mask, clusters) for direction in directions])

    def _near(self, direction: Floats, count: int, mask: Mask | None, clusters: Numbers) -> Numbers:
        if count >= self.sizes[clusters].sum():
            every = self.rows_of(clusters)
            return every if mask is None else every[mask[every]]
        # Not imported above, since a search of few photos does without. Its stubs lack scanners.
        faiss: Any = import_module("faiss")
        # FAISS multiplies the float16 values in place. Converting them first takes many times as long.
        selector = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        quantizer = faiss.ScalarQuantizer(self.width, faiss.ScalarQuantizer.QT_fp16)
        scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, False, selector, False)
        try:
            query = np.ascontiguousarray(direction, np.float32)
            scanner.set_query(faiss.swig_ptr(query))
            products, rows = np.full(count, -np.inf, np.float32), np.full(count, -1, np.int64)
            best, every = (faiss.swig_ptr(products), faiss.swig_ptr(rows), count), self._values.view(np.uint8)
            for part in self._opened(clusters):
                numbers = np.arange(part.start, part.stop)
                scanner.scan_codes(len(numbers), faiss.swig_ptr(every[part]), faiss.swig_ptr(numbers), *best)
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

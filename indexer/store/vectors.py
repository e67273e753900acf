"""A generation's vectors, one cluster after the other: an inverted file, of which a search opens some clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from sketch_search.indexer.store.rows import Array, map_array, write_array
from sketch_search.model.engine import Floats, Numbers

PHOTO_TABLE_FILE, VECTORS_FILE, EMBEDDINGS_FILE = "places.npy", "vectors.npy", "embeddings.npy"
# The number of vectors that are compared at a time: some 12 MiB of float32 with the default network.
_BLOCK = 1 << 14

# The stubs of FAISS lack scanners.
_faiss: Any = faiss

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PhotoTable:
    """Photo, cluster and segment row of the r rows of ``vectors.npy``: p shown by cluster and id, then the others.

    ids: (r,) the lowest of a photo's files, 0 for hidden. clusters: (r,), their number for hidden.
    segments: (r,) in the manifest's order. segment_rows: (r,) rows in these segments.
    """

    ids: Numbers
    clusters: Numbers
    segments: Numbers
    segment_rows: Numbers

    @staticmethod
    def of_array(array: Numbers) -> PhotoTable:
        return PhotoTable(*(np.ascontiguousarray(column) for column in array.T))

    @staticmethod
    def of_photos(
        ids: Numbers, clusters: Numbers, segments: Numbers, segment_rows: Numbers, sizes: Sequence[int], count: int
    ) -> PhotoTable:
        """Computes the table from columns of the shown photos, (p,) each; sizes: of segments; count: of clusters."""
        parts = [np.stack([ids, clusters, segments, segment_rows], axis=1)[np.lexsort((ids, clusters))]]
        for number, size in enumerate(sizes):
            hidden = np.ones(size, np.bool_)
            hidden[segment_rows[segments == number]] = False
            left = np.flatnonzero(hidden)
            same = (np.full_like(left, value) for value in (0, count, number))
            parts.append(np.stack([*same, left], axis=1))
        return PhotoTable.of_array(np.concatenate(parts))

    def array(self) -> Numbers:
        """Returns the columns side by side, (r, 4)."""
        return np.stack([self.ids, self.clusters, self.segments, self.segment_rows], axis=1)

    def fit(self, sizes: Numbers, clusters: int, photos: int) -> bool:
        """Returns True if each of the shown ``photos`` has a row in a segment of ``sizes``, and a cluster, in order."""
        segments, rows, shown = self.segments[:photos], self.segment_rows[:photos], self.clusters[:photos]
        known = len(shown) == photos and (segments >= 0).all() and (segments < len(sizes)).all() and (rows >= 0).all()
        if not known or not (rows < sizes[segments]).all():
            return False
        return bool((shown >= 0).all() and (shown < clusters).all() and (np.diff(shown) >= 0).all())

    def of_segment(self, number: int) -> Numbers:
        """Returns the photo rows of the m rows of a segment, (m,) in their order."""
        photo_rows = np.flatnonzero(self.segments == number)
        return photo_rows[np.argsort(self.segment_rows[photo_rows], kind="stable")]

    def write(self, folder: Path) -> None:
        write_array(folder / PHOTO_TABLE_FILE, self.array())

    @staticmethod
    def open(folder: Path, rows: int) -> PhotoTable:
        """Maps the table of a generation, of this many rows, into memory. Raises IndexRefused as ``map_array``."""
        return PhotoTable.of_array(map_array(folder / PHOTO_TABLE_FILE, (rows, 4), np.int64))


class Vectors:
    """Unit vectors of p photos, one cluster after the other, by which they are numbered here. Threads may share it.

    sizes: (c,) photos of each cluster. centroids: (c, d) the mean of each cluster's vectors.
    """

    def __init__(self, values: Array, sizes: Numbers, centroids: Floats) -> None:
        """Keeps ``values``: (r, d) float16, those of the photos first, mapped into memory and read when needed."""
        self.sizes, self.centroids = sizes, centroids
        self.count, self.width = int(sizes.sum()), int(values.shape[1])
        self._array: Array | None = values
        self._ends = np.cumsum(sizes)

    @property
    def _values(self) -> Array:
        if self._array is None:
            raise ValueError("the index is closed")
        return self._array

    def close(self) -> None:
        """Closes the file, even if something still refers to this object."""
        self._array = None

    def of(self, rows: Numbers | None = None) -> Floats:
        """Reads the vectors of these photos, or of all photos: (m, d) float32."""
        return (self._values[: self.count] if rows is None else self._values[rows]).astype(np.float32)

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
        return np.unique(np.concatenate([self._near(direction, count, mask, clusters) for direction in directions]))

    def _near(self, direction: Floats, count: int, mask: Mask | None, clusters: Numbers) -> Numbers:
        if count >= self.sizes[clusters].sum():
            every = self.rows_of(clusters)
            return every if mask is None else every[mask[every]]
        # FAISS multiplies the float16 values in place. Converting them first takes many times as long.
        selector = None if mask is None else _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        quantizer = _faiss.ScalarQuantizer(self.width, faiss.ScalarQuantizer.QT_fp16)
        scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, False, selector, False)
        try:
            query = np.ascontiguousarray(direction, np.float32)
            scanner.set_query(faiss.swig_ptr(query))
            products, rows = np.full(count, -np.inf, np.float32), np.full(count, -1, np.int64)
            for part in self._opened(clusters):
                values, numbers = self._values[part].view(np.uint8), np.arange(part.start, part.stop)
                scanner.scan_codes(len(numbers), *map(faiss.swig_ptr, (values, numbers, products, rows)), count)
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

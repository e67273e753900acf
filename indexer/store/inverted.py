"""Files that a large generation has beside its catalog: its photos' places, and the inverted file over their [Ret].

Photos lie in lists, one for each cell of a partition of the [Ret] space. A search reads the lists of some cells only.
The lists keep each number of the normalised [Ret] in one byte, by FAISS's scalar quantiser. That is near enough to find
the best photos; their scores are then computed from [Ret] as it was encoded.

The files are arrays of this project's and not an index as FAISS writes it: FAISS believes what a file's header says,
and a file may come from anywhere. The lists are mapped into memory, where the platform's FAISS can do that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import REPAIR, IndexRefused, unreadable
from indexer.store.clusters import assign, normalised
from indexer.store.files import open_regular, write_array
from indexer.store.rows import map_array

PLACES_FILE = "places.npy"
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """The p photos that are shown: one cluster after the other, and by id in each.

    Attributes:
        ids: (p,) the lowest id among each photo's files. clusters: (p,) from 0, ascending.
        segments: (p,) numbers of segments in the order of the manifest. rows: (p,) of these segments.
    """

    ids: Numbers
    clusters: Numbers
    segments: Numbers
    rows: Numbers

    @staticmethod
    def of_table(table: Numbers) -> Places:
        """Make places of a table (p, 4), whose columns are the attributes."""
        ids, clusters, segments, rows = (np.ascontiguousarray(column) for column in table.T)
        return Places(ids, clusters, segments, rows)

    def table(self) -> Numbers:
        """(p, 4): the columns are the attributes."""
        return np.stack([self.ids, self.clusters, self.segments, self.rows], axis=1)

    def fit(self, sizes: Numbers, clusters: int) -> bool:
        """Whether all rows are in segments of these sizes, (s,), and all photos in this many clusters, in order."""
        known = (self.segments >= 0) & (self.segments < len(sizes))
        if not known.all():
            return False
        inside = (self.rows >= 0) & (self.rows < sizes[self.segments]) & (self.clusters >= 0)
        return bool((inside & (self.clusters < clusters)).all() and (np.diff(self.clusters) >= 0).all())

    def write(self, folder: Path) -> None:
        """Write them into a generation's folder."""
        write_array(folder / PLACES_FILE, self.table())

    @staticmethod
    def open(folder: Path, count: int) -> Places:
        """Map the places of a generation with ``count`` photos. Raises IndexRefused: the file is missing or another."""
        return Places.of_table(map_array(folder / PLACES_FILE, (count, 4), np.int64))


Floats = npt.NDArray[np.float32]

# From so many photos on, reading [Ret] of every photo takes longer than going through the inverted file.
INVERTED_FROM = 50_000
# Cells that are searched, of about as many as the square root of the photos. In made galleries of 20,000 and 100,000
# photos, 26 cells held 0.98 of the exact first 96 photos of real sketches, and 57 held 0.995.
PROBED = 64
# k-means sees so many photos for each cell, and the quantiser as many in all as would be enough for any range.
_PER_CELL = 64
_FOR_RANGES = 1 << 16
_ITERATIONS = 10
_SEED = 1234
# Photos whose [Ret] is read at a time: some 12 MiB with the default network.
_BLOCK = 1 << 14
_PLACE_BYTES = 8
_CELLS, _RANGES, _SIZES, _LISTS = (
    "inverted_cells.npy",
    "inverted_ranges.npy",
    "inverted_sizes.npy",
    "inverted_lists.bin",
)
INVERTED_FILES = (_CELLS, _RANGES, _SIZES, _LISTS)

# [Ret] (m, d) of the photos at these places, not normalised.
ReadRet = Callable[[Numbers], npt.NDArray[Any]]


@dataclass(frozen=True)
class InvertedCells:
    """A partition of the photos.

    Attributes:
        centroids: (k, d) float32, the middle of each cell. of_photo: (p,) int64, each photo's cell, by place.
    """

    centroids: Floats
    of_photo: Numbers


def inverted_cells(read: ReadRet, count: int, centroids: Floats | None = None) -> InvertedCells:
    """Cells of ``count`` photos by k-means on a sample of their normalised [Ret]; about as many as the root of count.

    centroids: (k, d) of cells that are there already, which the photos join; None to make new ones.
    """
    if centroids is None:
        cells = max(1, round(math.sqrt(count)))
        sample = _unit(read, _spread(count, cells * _PER_CELL))
        kmeans = faiss.Kmeans(
            sample.shape[1], cells, niter=_ITERATIONS, seed=_SEED, min_points_per_centroid=1, verbose=False
        )
        kmeans.train(sample)
        centroids = np.asarray(kmeans.centroids, np.float32).reshape(cells, -1)
    joined = [assign(_unit(read, places), centroids) for places in _blocks(count)]
    return InvertedCells(centroids, np.concatenate([np.empty(0, np.int64), *joined]))


def write_inverted_file(folder: Path, read: ReadRet, cells: InvertedCells) -> None:
    """Write the inverted file of a generation's photos. The same photos and cells give the same bytes."""
    count = len(cells.of_photo)
    width = cells.centroids.shape[1]
    quantiser = _empty(cells.centroids)
    quantiser.train(_unit(read, _spread(count, _FOR_RANGES)))
    ranges = faiss.vector_to_array(quantiser.sq.trained).reshape(2, width)
    order = np.argsort(cells.of_photo, kind="stable")
    sizes = np.bincount(cells.of_photo, minlength=len(cells.centroids))
    write_array(folder / _CELLS, cells.centroids)
    write_array(folder / _RANGES, ranges)
    write_array(folder / _SIZES, sizes.astype(np.int64)[:, None])
    with (folder / _LISTS).open("wb") as file:
        # A list is its photos' codes, and then their places. Several lists are read at a time, whole.
        ends = np.cumsum(sizes)
        first = 0
        while first < len(sizes):
            start = int(ends[first] - sizes[first])
            last = max(first + 1, int(np.searchsorted(ends, start + _BLOCK, side="right")))
            places = order[start : ends[last - 1]]
            codes = quantiser.sq.compute_codes(_unit(read, places)) if len(places) else np.empty((0, width), np.uint8)
            for number in range(first, last):
                of_list = slice(int(ends[number] - sizes[number]) - start, int(ends[number]) - start)
                file.write(codes[of_list].tobytes())
                file.write(places[of_list].astype("<i8").tobytes())
            first = last
        file.flush()
        os.fsync(file.fileno())


def read_inverted_centroids(folder: Path, width: int) -> Floats:
    """The centroids of the cells of a generation's inverted file, (k, d). Raises IndexRefused: there are none."""
    centroids = np.array(map_array(folder / _CELLS, (None, width)))
    if not len(centroids) or not np.isfinite(centroids).all():
        raise IndexRefused(f"{folder / _CELLS} does not hold cells; {REPAIR}.")
    return centroids


class InvertedFile:
    """The inverted file of a generation. Threads may share it.

    Attributes:
        centroids: (k, d) float32, the middle of each cell.
    """

    def __init__(self, folder: Path, photos: int, width: int) -> None:
        """Maps the lists into memory; ``photos`` and ``width`` are those of the manifest.

        Raises:
            IndexRefused: a file is missing, or is of other photos.
        """
        self._path, self._photos = folder / _LISTS, photos
        self.centroids: Floats = read_inverted_centroids(folder, width)
        ranges = np.array(map_array(folder / _RANGES, (2, width)))
        cells = len(self.centroids)
        sizes = np.array(map_array(folder / _SIZES, (cells, 1), np.int64))[:, 0]
        self._quantiser = _empty(self.centroids)
        faiss.copy_array_to_vector(ranges.ravel(), self._quantiser.sq.trained)
        self._quantiser.is_trained = True
        try:
            with open_regular(self._path) as file:
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise unreadable(self._path, error) from error
        right = bool((sizes >= 0).all()) and bool((sizes <= photos).all()) and int(sizes.sum()) == photos
        if not right or size != photos * (self._quantiser.code_size + _PLACE_BYTES):
            raise self._refused("does not have one code for each photo")
        # The quantiser holds a reference only, so the lists are kept here.
        self._lists = _mapped(self._path, sizes, self._quantiser.code_size, size)
        self._quantiser.replace_invlists(self._lists)
        self._quantiser.ntotal = photos
        # A single query is spread over the threads by its cells.
        self._quantiser.parallel_mode = 1
        self._sizes = sizes

    def nearest(
        self, direction: Floats, count: int, passing: npt.NDArray[np.bool_] | None = None, probed: int = PROBED
    ) -> Numbers:
        """The places of about the ``count`` photos whose normalised [Ret] has the highest product with ``direction``.

        Those of ``probed`` cells are searched, and of more cells where these hold too few photos: the cells whose
        centroids have the least angle to it.

        Args:
            direction: (d,). passing: (p,) whether a photo may be found; None where all may. As many more cells are
                searched as fewer photos pass.

        Returns:
            (m,) int64 with m at most ``count``, in no order.

        Raises:
            IndexRefused: a list names a photo that the index does not have.
        """
        wanted = min(count, self._photos if passing is None else int(passing.sum()))
        if not wanted:
            return np.empty(0, np.int64)
        share = 1.0 if passing is None else float(passing.mean())
        cells = min(len(self.centroids), math.ceil(probed / share))
        query = np.ascontiguousarray(direction, np.float32)[None]
        while True:
            found = self._search(query, cells, wanted, passing)
            if len(found) >= wanted or cells == len(self.centroids):
                return found
            cells = min(len(self.centroids), 2 * cells)

    def _search(self, query: Floats, cells: int, count: int, passing: npt.NDArray[np.bool_] | None) -> Numbers:
        options: dict[str, Any] = {"nprobe": cells}
        if passing is not None:
            bits = np.packbits(passing, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)  # type: ignore[arg-type, call-arg]
        _, places = self._quantiser.search(query, count, params=faiss.SearchParametersIVF(**options))
        found: Numbers = places[0][places[0] >= 0]
        if len(found) and found.max() >= self._photos:
            raise self._refused("names photos that are not there")
        return np.unique(found)

    def problems(self) -> list[str]:
        """Read all of the lists, and tell what is wrong with them."""
        if not np.isfinite(faiss.vector_to_array(self._quantiser.sq.trained)).all():
            return ["its ranges are not finite"]
        lists = np.memmap(self._path, np.uint8, "r") if self._photos else np.empty(0, np.uint8)
        places, width = [np.empty(0, np.int64)], self._quantiser.code_size
        start = 0
        for size in self._sizes.tolist():
            start += size * width
            places.append(np.frombuffer(lists[start : start + size * _PLACE_BYTES].tobytes(), "<i8"))
            start += size * _PLACE_BYTES
        complete = np.array_equal(np.sort(np.concatenate(places)), np.arange(self._photos))
        return [] if complete else ["its lists do not hold every photo once"]

    def _refused(self, problem: str) -> IndexRefused:
        return IndexRefused(f"{self._path} {problem}; {REPAIR}.")


def _empty(centroids: Floats) -> Any:
    """A quantiser with these cells and without photos, to be trained."""
    cells, width = centroids.shape
    coarse = faiss.IndexFlatIP(width)
    # By angle: of the ways to choose cells that were tried, it needed the fewest for the same photos.
    coarse.add(normalised(centroids))
    kind, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    return faiss.IndexIVFScalarQuantizer(coarse, width, cells, kind, metric, False)


def _mapped(path: Path, sizes: Numbers, code_size: int, size: int) -> Any:
    """The lists in a file."""
    if not hasattr(faiss, "OnDiskInvertedLists"):
        return _read(path, sizes, code_size)
    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size, lists.read_only = len(sizes), code_size, True
    lists.filename, lists.totsize = os.fsdecode(path), size
    lists.lists.resize(len(sizes))  # type: ignore[attr-defined]
    counts = sizes.astype(np.uint64)
    lists.set_all_lists_sizes(faiss.swig_ptr(counts))
    lists.do_mmap()
    return lists


def _read(path: Path, sizes: Numbers, code_size: int) -> Any:
    """Read the lists into memory, for FAISS on Windows, which maps no lists."""
    lists = faiss.ArrayInvertedLists(len(sizes), code_size)
    data, start = np.fromfile(path, np.uint8), 0
    for number, size in enumerate(sizes.tolist()):
        codes = np.ascontiguousarray(data[start : start + size * code_size])
        start += size * code_size
        places = np.frombuffer(data[start : start + size * _PLACE_BYTES].tobytes(), "<i8")
        start += size * _PLACE_BYTES
        if size:
            lists.add_entries(number, size, faiss.swig_ptr(places), faiss.swig_ptr(codes))
    return lists


def _unit(read: ReadRet, places: Numbers) -> Floats:
    return normalised(read(places))


def _spread(count: int, wanted: int) -> Numbers:
    """At most ``wanted`` of ``count`` places, at equal distances."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))


def _blocks(count: int) -> list[Numbers]:
    return [np.arange(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]

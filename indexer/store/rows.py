"""Reads and writes an index's rows: vectors and boxes by cluster in the generation, tokens and regions in segments.

Segments are never written again, so that clustering again, and finding boxes later, rewrites no tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketch_search.indexer.errors import REPAIR, IndexDamaged, unreadable
from sketch_search.indexer.store.files import sync_folder
from sketch_search.model.engine import Floats, Numbers, Tokens
from sketch_search.model.engine.detector import BOXES
from sketch_search.model.engine.tokens import dequantize
from sketch_search.model.search.clusters import assign, mean_tokens

Array = npt.NDArray[Any]
# Chooses rows, in a form by which arrays are indexed.
Choice = slice | Sequence[int] | npt.NDArray[Any]
# Rows that are copied at a time: some 40 MiB for the largest network, and four times as much in float32.
BLOCK = 256
# The arrays that a photo may have; those of its tokens and regions lie in segments.
DTYPES = {
    "vectors": np.float16,
    "embeddings": np.float16,
    "tokens": np.int8,
    "scales": np.float32,
    "positions": np.uint8,
    "regions": np.uint8,
    "colours": np.int8,
    "boxes": np.uint8,
}
# The centroids found by k-means, (c, e) float32.
CLUSTERS_FILE = "clusters.npy"
# Rows that are assigned to clusters at a time: 12 MiB of vectors of the default network.
_ASSIGNED = 1 << 14
PHOTO_TABLE_FILE, VECTORS_FILE, EMBEDDINGS_FILE = "places.npy", "vectors.npy", "embeddings.npy"
BOXES_FILE = "boxes.npy"
TOKEN_FILES, REGION_FILES = ("tokens", "positions", "scales"), ("regions", "colours")


class ArraySubset:
    """Holds rows ``numbers`` (m,) of an array, which are read on demand."""

    def __init__(self, array: Array, numbers: npt.NDArray[np.int64]) -> None:
        self._array, self._numbers = array, numbers
        self.shape: tuple[int, ...] = (len(numbers), *array.shape[1:])
        self.dtype: np.dtype[Any] = array.dtype

    def __getitem__(self, rows: Choice) -> Array:
        return np.asarray(self._array[self._numbers[rows]])


@dataclass(frozen=True)
class PhotoArrays:
    """Arrays of m photos by the names of their files: all that is kept, or tokens alone.

    "vectors" and CLIP's "embeddings", (m, d) float16 of length 1; "tokens", (m, n, d) int8, [Ret] first, times
    "scales", (m, n) float32; "positions", (m, n-1) uint8, cells ascending; "regions", (m, g, r / 2) uint8, ``pack``ed;
    "colours", (m, g, 3) int8, as CIELAB; "boxes", (m, BOXES, 6) uint8, as ``Detector.detect`` finds them.
    """

    arrays: Mapping[str, Array | ArraySubset]

    def take(self, rows: Choice) -> PhotoArrays:
        return PhotoArrays({name: np.array(array[rows]) for name, array in self.arrays.items()})

    @staticmethod
    def join(parts: Sequence[PhotoArrays]) -> PhotoArrays:
        return PhotoArrays({name: np.concatenate([part.arrays[name][:] for part in parts]) for name in parts[0].arrays})

    def vectors(self) -> npt.NDArray[np.float32]:
        return np.array(self.arrays["vectors"][:], np.float32)

    def features(self) -> npt.NDArray[np.float32]:
        """Reads the features of the photos' tokens: (m, n, d) float32."""
        return dequantize(self.arrays["tokens"][:], self.arrays["scales"][:])

    def positions(self) -> npt.NDArray[np.int64]:
        """Reads the positions of the photos' tokens on the patch grid: (m, n-1) int64, numbers of patches."""
        return np.array(self.arrays["positions"][:], np.int64)


@dataclass(frozen=True)
class SegmentRows:
    """m rows of segments: the index of each one's segment or slice in ``names``, and its number there, from 0."""

    names: tuple[str, ...]
    sources: npt.NDArray[np.integer[Any]]
    numbers: npt.NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, chosen: Choice) -> SegmentRows:
        return SegmentRows(self.names, self.sources[chosen], self.numbers[chosen])

    def with_parts(self, parts: Numbers) -> SegmentRows:
        """Returns these rows, each followed by the so many after it, (m,)."""
        sources, numbers = (np.repeat(column, 1 + parts) for column in (self.sources, self.numbers))
        return SegmentRows(self.names, sources, numbers + _counted(1 + parts))


def _counted(lengths: Numbers) -> Numbers:
    """Counts from 0 in runs of these lengths, one after the other."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def unseen_boxes(photos: int) -> npt.NDArray[np.uint8]:
    """Returns what is kept of photos in which no boxes were looked for yet, (photos, BOXES, 6), not to be written."""
    return np.broadcast_to(np.uint8(255), (photos, BOXES, 6))


def are_unseen(boxes: Array) -> npt.NDArray[np.bool_]:
    """Returns in which photos (m,) no boxes were looked for yet."""
    return np.asarray((boxes[:, 0] == 255).all(axis=-1))


def with_boxes(rows: PhotoArrays, noted: Sequence[tuple[int, int, bytes]]) -> PhotoArrays:
    """Returns the rows of a source with other boxes of photos, by number, and of so many parts that follow each."""
    if not noted:
        return rows
    boxes = np.array(rows.arrays["boxes"][:])
    for number, parts, data in noted:
        new_boxes = np.frombuffer(data, np.uint8).reshape(-1, BOXES, 6)[: 1 + parts]
        boxes[number : number + len(new_boxes)] = new_boxes
    return PhotoArrays({**rows.arrays, "boxes": boxes})


class SegmentReader:
    """Reads rows of several segments and slices together. ``sources`` has the arrays of each by its name."""

    def __init__(self, sources: Mapping[str, PhotoArrays]) -> None:
        self._sources = sources

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(next(iter(self._sources.values())).arrays)

    def read_clustered(self, rows: SegmentRows) -> npt.NDArray[np.float32]:
        """Reads the vectors from which clusters of these m rows are made, CLIP's if there are any: (m, e) float32."""
        name = "embeddings" if "embeddings" in self.names else "vectors"
        return np.asarray(self.take(rows, (name,), np.float32).arrays[name][:])

    def take(
        self, rows: SegmentRows, names: Sequence[str] | None = None, dtype: npt.DTypeLike | None = None
    ) -> PhotoArrays:
        """Reads these rows into memory, in their order. names: of the arrays; None for all. dtype: None for theirs."""
        like = next(iter(self._sources.values())).arrays
        shapes = {name: (len(rows), *like[name].shape[1:]) for name in names or self.names}
        taken = {name: np.empty(shape, dtype or like[name].dtype) for name, shape in shapes.items()}
        order = np.argsort(rows.sources, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(rows.sources[order])) + 1) if len(rows) else ():
            source, numbers = rows.names[rows.sources[chosen[0]]], rows.numbers[chosen]
            arrays = self._sources[source].arrays
            for name, array in taken.items():
                if len(chosen) == len(rows):
                    taken[name] = np.asarray(arrays[name][numbers], array.dtype)
                else:
                    array[chosen] = arrays[name][numbers]
        return PhotoArrays(taken)


def write_rows(folder: Path, reader: SegmentReader, rows: SegmentRows, names: Sequence[str]) -> None:
    """Writes the existing arrays of ``names`` of these rows in order, as .npy files, synced."""
    for name in (name for name in names if name in reader.names):
        none = reader.take(rows[:0], (name,)).arrays[name]
        parts = (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
        blocks = (reader.take(part, (name,)).arrays[name][:] for part in parts)
        write_blocks(folder / f"{name}.npy", (len(rows), *none.shape[1:]), none.dtype, blocks)


def write_blocks(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, blocks: Iterable[Array]) -> None:
    """Writes an array as .npy from blocks of rows, synced. A map would end the process on a full disk."""
    with path.open("wb") as file:
        file.write(_header(shape, dtype))
        for rows in blocks:
            file.write(np.ascontiguousarray(rows, dtype).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _header(shape: tuple[int, ...], dtype: npt.DTypeLike) -> bytes:
    """Makes the header of a .npy file. NumPy leaves room in it: it is as long for any number of rows."""
    file = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


@dataclass(frozen=True)
class GrowingRows:
    """Files to which rows are appended: tokens and regions in ``segment``, vectors in ``vectors``; headers last."""

    segment: Path
    vectors: Path

    def append(self, arrays: PhotoArrays, first: int, *, sync: bool = True) -> None:
        """Writes rows from number ``first`` on, over those that a stopped build may have left there."""
        for name, array in arrays.arrays.items():
            rows = np.ascontiguousarray(array[:], DTYPES[name])
            header = _header((0, *rows.shape[1:]), rows.dtype)
            with self._path(name).open("r+b" if first else "wb") as file:
                if not first:
                    file.write(header)
                file.seek(len(header) + first * rows[0].nbytes)
                file.write(rows.tobytes())
                file.truncate()
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        for folder in (self.vectors, self.segment, self.segment.parent) if sync and not first else ():
            sync_folder(folder)

    def open(self, count: int) -> PhotoArrays:
        """Maps the first ``count`` rows into memory. Raises IndexDamaged if there are fewer, or if they are no rows."""
        if not count:
            return PhotoArrays({})
        paths = map(self._path, DTYPES)
        return PhotoArrays({path.stem: _map_file(path, count) for path in paths if path.exists()})

    def finish(self, names: Sequence[str], count: int) -> tuple[Path, ...]:
        """Makes complete .npy files of so many rows, synced, and returns their paths by name."""
        paths = tuple(self._path(name) for name in sorted(names))
        for path in paths:
            rows = _map_file(path, count)
            with path.open("r+b") as file:
                file.write(_header(rows.shape, rows.dtype))
                file.truncate(file.tell() + rows.nbytes)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(self.segment)
        return paths

    def _path(self, name: str) -> Path:
        return (self.segment if name in TOKEN_FILES + REGION_FILES else self.vectors) / f"{name}.npy"


def write_array(path: Path, array: Array) -> None:
    write_blocks(path, array.shape, array.dtype, [array])


def map_array(path: Path, shape: tuple[int | None, ...], dtype: npt.DTypeLike = np.float32) -> Array:
    """Maps a .npy file into memory. Raises IndexRefused for another shape (None: any length) or dtype."""
    array = _map_file(path)
    fits = array.dtype == np.dtype(dtype) and array.ndim == len(shape)
    if not fits or not all(wide in (None, side) for side, wide in zip(array.shape, shape, strict=True)):
        raise IndexDamaged(f"{path} is not the array in the manifest; {REPAIR}.")
    return array


def _map_file(path: Path, count: int | None = None) -> Array:
    """Maps the array of a .npy file into memory, or its first ``count`` rows. Raises IndexRefused."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if count is not None:
            array = np.memmap(path, array.dtype, "r", array.offset, (count, *array.shape[1:]))
        # As a plain array, since rows of NumPy's maps take several times as long to choose.
        return np.asarray(array.view(np.ndarray))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, EOFError) as error:
        # Some of NumPy's messages advise loading it without any check.
        raise IndexDamaged(f"{path} is damaged (not a NumPy array); {REPAIR}.") from error


def nearest(reader: SegmentReader, rows: SegmentRows, centroids: Floats) -> npt.NDArray[np.int64]:
    """Finds the nearest centroid of each of m rows, (m,), without loading all vectors into memory."""
    parts = (rows[start : start + _ASSIGNED] for start in range(0, len(rows), _ASSIGNED))
    return np.concatenate([assign(reader.read_clustered(part), centroids) for part in parts])


@dataclass(frozen=True)
class Centroids:
    """Represents c clusters: ret (c, d) float32, the mean of their photos' vectors.

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
        mean = mean_tokens(Tokens(part.features(), part.positions()) for part in parts)
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


@dataclass(frozen=True)
class PhotoTable:
    """Photo, cluster and segment row of the r rows of ``vectors.npy``: shown ones by cluster, then the others.

    In each cluster are photos by id, then parts of photos. A part is in its photo's cluster, whatever it shows.
    ids: (r,) the lowest of a photo's files, 0 less that for its parts, 0 for hidden. clusters: (r,), their number for
    hidden. segments: (r,) in the manifest's order. segment_rows: (r,) rows in these segments.
    """

    ids: Numbers
    clusters: Numbers
    segments: Numbers
    segment_rows: Numbers

    @staticmethod
    def of_array(array: Numbers) -> PhotoTable:
        return PhotoTable(*(np.ascontiguousarray(column) for column in array.T))

    @staticmethod
    def of_photos(columns: Sequence[Numbers], parts_of: Numbers, sizes: Sequence[int], count: int) -> PhotoTable:
        """Computes the table. columns: of the shown photos, (p,) each; parts_of: (p,) how many parts follow the row of
        each in its segment; sizes: of segments; count: of clusters."""
        ids, clusters, segments, segment_rows = (np.repeat(column, 1 + parts_of) for column in columns)
        part = _counted(1 + parts_of)
        shown = np.stack([np.where(part, -ids, ids), clusters, segments, segment_rows + part], axis=1)
        parts = [shown[np.lexsort((part, ids, part > 0, clusters))]]
        segments, segment_rows = shown[:, 2], shown[:, 3]
        for number, size in enumerate(sizes):
            hidden = np.ones(size, np.bool_)
            hidden[segment_rows[segments == number]] = False
            left = np.flatnonzero(hidden)
            same = (np.full_like(left, value) for value in (0, count, number))
            parts.append(np.stack([*same, left], axis=1))
        return PhotoTable.of_array(np.concatenate(parts))

    def parts_by_row(self, names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """Yields segment, row and how many parts follow, of each shown photo that has any. names: of segments."""
        whole = np.flatnonzero(np.isin(self.ids, -self.ids[self.ids < 0]))
        counts = np.bincount(-self.ids[self.ids < 0])
        for row in whole.tolist():
            yield names[self.segments[row]], int(self.segment_rows[row]), int(counts[self.ids[row]])

    def of_segment(self, number: int) -> Numbers:
        """Returns the photo rows of the m rows of a segment, (m,) in their order."""
        photo_rows = np.flatnonzero(self.segments == number)
        return photo_rows[np.argsort(self.segment_rows[photo_rows], kind="stable")]

    def write(self, folder: Path) -> None:
        write_array(folder / PHOTO_TABLE_FILE, np.stack([*vars(self).values()], axis=1))

    @staticmethod
    def open(folder: Path, rows: int) -> PhotoTable:
        """Maps the table of a generation, of this many rows, into memory. Raises IndexRefused as ``map_array``."""
        return PhotoTable.of_array(map_array(folder / PHOTO_TABLE_FILE, (rows, 4), np.int64))

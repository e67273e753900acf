"""The rows of an index: what is kept of each photo.

Tokens lie in segments, in the order of the photos, and are never written again. Vectors lie in the generation, cell
after cell (``indexer.store.vectors``), so that clustering again rewrites vectors and no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.errors import REPAIR, IndexRefused, unreadable
from indexer.store.files import ArrayWriter, open_regular, sync_folder

Array = npt.NDArray[Any]
# Which rows, as arrays are indexed.
Choice = slice | Sequence[int] | npt.NDArray[Any]
# The sides of an array; None: any.
Shape = tuple[int | None, ...]
# Rows copied at a time. It bounds memory at some 40 MiB for the largest network, four times that as float32.
BLOCK = 256
# Arrays up to so many bytes are read at once: whoever cuts the file of a mapped one short ends the process.
_READ = 2**20
TOKEN_FILES = ("tokens", "positions", "scales")
# Tokens are kept as -127..127: the same number of steps to either side of 0.
_STEPS = 127


@dataclass(frozen=True)
class TokenArrays:
    """The tokens of m photos.

    Attributes:
        steps: (m, n, d) int8, [Ret] in row 0.
        positions: (m, n-1) uint8, each patch token's cell of the patch grid, ascending.
        scales: (m, n) float32. A token's features are its steps times its scale.
    """

    steps: Array
    positions: Array
    scales: Array

    def named(self) -> dict[str, Array | Picked]:
        """The arrays by the name of their file."""
        return {"tokens": self.steps, "positions": self.positions, "scales": self.scales}

    @staticmethod
    def of_named(arrays: Mapping[str, Array | Picked]) -> TokenArrays | None:
        """The tokens among these arrays; None where there are none."""
        if "tokens" not in arrays:
            return None
        steps, positions, scales = (np.asanyarray(arrays[name]) for name in TOKEN_FILES)
        return TokenArrays(steps, positions, scales)

    def features(self, rows: Choice) -> npt.NDArray[np.float32]:
        """(len(rows), n, d) float32 in memory: the features of these photos' tokens."""
        features = np.array(self.steps[rows], np.float32)
        features *= self.scales[rows][..., None]
        return features

    def cells(self, rows: Choice) -> npt.NDArray[np.int64]:
        """(len(rows), n-1) int64 in memory: the cells of the patch grid of these photos' patch tokens."""
        return np.array(self.positions[rows], np.int64)

    @staticmethod
    def of(features: npt.NDArray[np.floating[Any]], positions: npt.NDArray[np.uint8]) -> TokenArrays:
        """The tokens with these features (m, n, d), as near as int8 comes to them, see ``quantised``."""
        steps, scales = quantised(features)
        return TokenArrays(steps, positions, scales)


class Picked:
    """Rows of an array by their numbers, which are read when they are asked for: as an array (m, ...) itself."""

    def __init__(self, array: Array, numbers: npt.NDArray[np.int64]) -> None:
        """array: (n, ...), mapped into memory. numbers: (m,), which of its rows these are."""
        self._array, self._numbers = array, numbers
        self.shape: tuple[int, ...] = (len(numbers), *array.shape[1:])
        self.dtype: np.dtype[Any] = array.dtype

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, rows: Choice) -> Array:
        return np.asarray(self._array[self._numbers[rows]])


@dataclass(frozen=True)
class RowArrays:
    """The rows of m photos.

    Attributes:
        vectors: (m, d) float16, [Ret] at unit length.
        embeddings: (m, e) float16 at unit length, what CLIP made of the photos; None where nothing but the network saw
            them. Clusters are made from these, else from the vectors.
        tokens: None where none are kept: by networks that give a global vector only (n = 1).
    """

    vectors: Array | Picked
    embeddings: Array | Picked | None = None
    tokens: TokenArrays | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def named(self) -> dict[str, Array | Picked]:
        """The arrays there are, by the name of their file."""
        arrays: dict[str, Array | Picked] = {"vectors": self.vectors}
        if self.embeddings is not None:
            arrays["embeddings"] = self.embeddings
        return arrays | (self.tokens.named() if self.tokens is not None else {})

    @staticmethod
    def of_named(arrays: Mapping[str, Array | Picked]) -> RowArrays:
        """The opposite of ``named``."""
        return RowArrays(arrays["vectors"], arrays.get("embeddings"), TokenArrays.of_named(arrays))

    def take(self, rows: Choice) -> RowArrays:
        """These rows of every array, in memory."""
        return RowArrays.of_named({name: np.array(array[rows]) for name, array in self.named().items()})

    def clustered_by(self, rows: Choice) -> npt.NDArray[np.float32]:
        """(len(rows), e) float32 in memory: the vectors that clusters of these photos are made from."""
        return np.array((self.vectors if self.embeddings is None else self.embeddings)[rows], np.float32)


def quantised(features: npt.NDArray[np.floating[Any]]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Features (..., d) as steps (..., d) int8, and a scale for each token, (...) float32.

    Steps times scale differ from the features by at most half the scale, which is 1/127 of the token's largest value;
    ties go to the even step. A token with a value that is not finite gets a scale that is not finite.
    """
    features = np.asarray(features, np.float32)
    with np.errstate(invalid="ignore"):
        scales = np.abs(features).max(axis=-1) / np.float32(_STEPS)
        steps = features / np.where(scales > 0, scales, 1)[..., None]
        return np.rint(steps).clip(-_STEPS, _STEPS).astype(np.int8), scales


@dataclass(frozen=True)
class SegmentRow:
    """A row of a segment: the segment's name, and the row's number in it, from 0."""

    segment: str
    number: int


@dataclass(frozen=True)
class StagedRow:
    """A row that a running build has computed, and that is in no segment yet: its number in the journal, from 0."""

    number: int


RowRef = SegmentRow | StagedRow


class Rows:
    """Rows of several segments, and of a running build's journal, read together.

    Args:
        segments: segments by name, which may be opened when they are asked for. staged: the journal's rows; None where
            there are none.
    """

    def __init__(self, segments: Mapping[str, RowArrays], staged: RowArrays | None = None) -> None:
        self._segments = segments
        self._staged = staged

    def vectors(self, refs: Sequence[RowRef]) -> npt.NDArray[np.float32]:
        """(len(refs), d) float32: the vectors of these rows, in the order of ``refs``."""
        return self._collect(refs, lambda arrays, rows: {"": np.array(arrays.vectors[rows], np.float32)})[""]

    def clustered_by(self, refs: Sequence[RowRef]) -> npt.NDArray[np.float32]:
        """(len(refs), e) float32: the vectors that clusters of these rows are made from."""
        return self._collect(refs, lambda arrays, rows: {"": arrays.clustered_by(rows)})[""]

    def tokens(self, refs: Sequence[RowRef]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | None:
        """The features (len(refs), n, d) float32 and the cells (len(refs), n-1) of these rows; None without tokens."""

        def read(arrays: RowArrays, rows: list[int]) -> dict[str, Array]:
            kept = arrays.tokens
            return {} if kept is None else {"features": kept.features(rows), "cells": kept.cells(rows)}

        found = self._collect(refs, read)
        return (found["features"], found["cells"]) if found else None

    def take(self, refs: Sequence[RowRef]) -> RowArrays:
        """All that is kept of these rows, in memory."""
        return RowArrays.of_named(self._collect(refs, lambda arrays, rows: dict(arrays.take(rows).named())))

    def _collect(
        self, refs: Sequence[RowRef], read: Callable[[RowArrays, list[int]], Mapping[str, Any]]
    ) -> dict[str, Array]:
        """Call ``read`` for each source, and put its rows together in the order of ``refs``."""
        # Reading no row tells the arrays' names, shapes and dtypes.
        some = self._staged if self._staged is not None else next(iter(self._segments.values()))
        like = read(some, [])
        found = {name: np.empty((len(refs), *none.shape[1:]), none.dtype) for name, none in like.items()}
        by_segment: dict[str, list[int]] = {}
        in_journal: list[int] = []
        for number, ref in enumerate(refs):
            if isinstance(ref, SegmentRow):
                by_segment.setdefault(ref.segment, []).append(number)
            else:
                in_journal.append(number)
        sources = [(self._segments[name], wanted) for name, wanted in by_segment.items()]
        if self._staged is not None:
            sources.append((self._staged, in_journal))
        for arrays, wanted in sources:
            for name, array in read(arrays, [refs[number].number for number in wanted]).items():
                found[name][wanted] = array
        return found


def write_segment(folder: Path, rows: Rows, refs: Sequence[RowRef], *, with_vectors: bool = False) -> None:
    """Writes the tokens of the rows, in the order given, as a new segment, and syncs it to disk.

    with_vectors: whether the vectors are written, too: a segment of an index has none.
    """
    folder.mkdir()
    names = rows.take([]).named()
    with ExitStack() as files:
        writers = {
            name: files.enter_context(ArrayWriter(folder / f"{name}.npy", (len(refs), *none.shape[1:]), none.dtype))
            for name, none in names.items()
            if with_vectors or name in TOKEN_FILES
        }
        for start in range(0, len(refs) if writers else 0, BLOCK):
            block = rows.take(refs[start : start + BLOCK]).named()
            for name, writer in writers.items():
                writer.write(np.asarray(block[name]))
    sync_folder(folder)


@dataclass(frozen=True)
class RowShape:
    """The shape of a segment by the manifest: how many rows; d, numbers in a token; n, tokens of one photo."""

    rows: int
    width: int
    tokens: int

    def fits(self, arrays: Mapping[str, Array | Picked]) -> bool:
        """Whether these are the arrays of tokens of such a segment, by name, each with its shape and dtype."""
        rows, width, tokens = self.rows, self.width, self.tokens
        expected: dict[str, tuple[Shape, npt.DTypeLike]] = {}
        if tokens > 1:
            expected["tokens"] = ((rows, tokens, width), np.int8)
            expected["positions"] = ((rows, tokens - 1), np.uint8)
            expected["scales"] = ((rows, tokens), np.float32)
        return expected.keys() == arrays.keys() and all(has(arrays[name], *like) for name, like in expected.items())


def open_tokens(folder: Path, shape: RowShape) -> TokenArrays | None:
    """Maps the tokens of a segment into memory; None where none are kept. Nothing is read before it is used.

    Raises:
        IndexRefused: a file is missing, is no array, or is another one than ``shape`` says.
    """
    arrays = {name: map_array(folder / f"{name}.npy") for name in TOKEN_FILES if shape.tokens > 1}
    if not shape.fits(arrays):
        raise IndexRefused(f"{folder} does not have the rows that the manifest says; {REPAIR}.")
    return TokenArrays.of_named(arrays)


def open_written(folder: Path) -> RowArrays:
    """Maps a segment that has vectors, too, into memory. Raises IndexRefused: a file is missing or damaged."""
    names = ["vectors", *(name for name in ("embeddings", *TOKEN_FILES) if (folder / f"{name}.npy").exists())]
    return RowArrays.of_named({name: map_array(folder / f"{name}.npy") for name in names})


def has(array: Array | Picked, shape: Shape, dtype: npt.DTypeLike) -> bool:
    """Whether an array has this shape, with None for any number, and this dtype."""
    sides = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
    return sides and array.dtype == np.dtype(dtype)


def map_array(path: Path, shape: Shape | None = None, dtype: npt.DTypeLike = np.float32) -> Array:
    """Map one .npy file into memory, or read it where it is small.

    Args:
        shape, dtype: what the array must have, with any number for a None in its shape; None where the caller checks.

    Raises:
        IndexRefused: it is missing, is no array of numbers in rows, or is another one.
    """
    try:
        # NumPy would wait for ever for a pipe.
        open_regular(path).close()
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError:
        raise
    # NumPy parses the header as Python's source text, which raises whatever the parser does.
    except Exception as error:
        raise IndexRefused(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); {REPAIR}.") from error
    numbers = isinstance(array, np.ndarray) and array.dtype.kind in "iuf" and array.ndim > 1
    if not numbers or (shape is not None and not has(array, shape, dtype)):
        raise IndexRefused(f"{path} is not the array that the manifest says; {REPAIR}.")
    return np.array(array) if array.nbytes <= _READ else array

"""Segments: immutable folders of rows, one row a distinct photo, ordered by cluster and then by id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from indexer.errors import REPAIR, IndexRefused
from indexer.store.files import ArrayWriter, sync_folder

Array = npt.NDArray[Any]
# Which rows, as arrays are indexed.
Choice = slice | Sequence[int] | npt.NDArray[Any]
# Rows copied at a time; bounds memory at some 40 MiB for the largest network, four times that as float32.
BLOCK = 256
# The largest step either way from 0: -128 has no counterpart.
_STEPS = 127


@dataclass(frozen=True)
class RowArrays:
    """What is kept of m photos.

    Attributes:
        ret: (m, d) float32, [Ret] as encoded, not normalised.
        embeddings: (m, e) float32, L2-normalised; what is clustered.
        tokens: (m, n, d) int8, [Ret] in row 0; None for networks with a global vector only (n = 1). Segments of format
            1 have the features themselves, float16.
        positions: (m, n-1) uint8, cells of the patch grid, ascending; None where ``tokens`` is.
        scales: (m, n) float32, what each token is to be multiplied by; None where there are none, as in format 1.
    """

    ret: Array
    embeddings: Array
    tokens: Array | None = None
    positions: Array | None = None
    scales: Array | None = None

    def __len__(self) -> int:
        return len(self.ret)

    def named(self) -> dict[str, Array]:
        """The arrays there are, by the name of their file."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def take(self, rows: Choice) -> RowArrays:
        """These rows of every array."""
        return RowArrays(**{name: array[rows] for name, array in self.named().items()})

    def features(self, rows: Choice) -> npt.NDArray[np.float32]:
        """(len(rows), n, d) float32: the tokens of these rows, in memory. Only where there are tokens."""
        assert self.tokens is not None
        if self.scales is None:
            # NumPy turns halves into floats one at a time, torch many at once.
            return np.asarray(torch.from_numpy(np.array(self.tokens[rows])).float())
        found = np.array(self.tokens[rows], np.float32)
        found *= self.scales[rows][..., None]
        return found

    def quantised(self) -> RowArrays:
        """The same as they are written now."""
        if self.tokens is None or self.scales is not None:
            return self
        tokens, scales = quantised(self.tokens)
        return replace(self, tokens=tokens, scales=scales)


def quantised(features: npt.NDArray[np.floating[Any]]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Features (..., d) as int8 (..., d) and a scale for each token, (...) float32.

    A token times its scale is off by at most half the scale, which is 1/127 of the largest value; ties go to the even
    step. A token with a value that is not finite gets a scale that is not.
    """
    features = np.asarray(features, np.float32)
    with np.errstate(invalid="ignore"):
        scales = np.abs(features).max(axis=-1) / np.float32(_STEPS)
        steps = features / np.where(scales > 0, scales, 1)[..., None]
        return np.rint(steps).clip(-_STEPS, _STEPS).astype(np.int8), scales


@dataclass(frozen=True)
class RowRef:
    """Where a photo's row is: the name of a segment, or "" for the journal of a running build; and the row in it."""

    source: str
    row: int


class Rows:
    """Rows of several sources, read by reference."""

    def __init__(self, sources: Mapping[str, RowArrays]) -> None:
        self._sources = dict(sources)

    def gather(self, refs: Sequence[RowRef], field: str) -> Array:
        """(len(refs), ...): the rows, in the order of ``refs``, of an array that has one form in all segments."""
        return self._collect(refs, lambda arrays, rows: {field: arrays.named()[field][rows]})[field]

    def features(self, refs: Sequence[RowRef]) -> npt.NDArray[np.float32]:
        """(len(refs), n, d) float32: their tokens. Only where there are tokens."""
        return self._collect(refs, lambda arrays, rows: {"features": arrays.features(rows)})["features"]

    def take(self, refs: Sequence[RowRef]) -> RowArrays:
        """All of the rows, in the order of ``refs``, in memory, in the form that is written now."""
        return RowArrays(**self._collect(refs, lambda arrays, rows: arrays.take(rows).quantised().named()))

    def _collect(
        self, refs: Sequence[RowRef], read: Callable[[RowArrays, list[int]], dict[str, Array]]
    ) -> dict[str, Array]:
        """What ``read`` gives of each source's rows, put together in the order of ``refs``."""
        first = next(iter(self._sources.values()))
        found = {name: np.empty((len(refs), *none.shape[1:]), none.dtype) for name, none in read(first, []).items()}
        for source in {ref.source for ref in refs}:
            places = [place for place, ref in enumerate(refs) if ref.source == source]
            part = read(self._sources[source], [refs[place].row for place in places])
            for name, array in part.items():
                found[name][places] = array
        return found


def write_segment(folder: Path, rows: Rows, refs: Sequence[RowRef]) -> None:
    """Write the rows, in the order given, as a new segment; synced."""
    folder.mkdir()
    with ExitStack() as files:
        writers = {
            name: files.enter_context(ArrayWriter(folder / f"{name}.npy", (len(refs), *none.shape[1:]), none.dtype))
            for name, none in rows.take([]).named().items()
        }
        for start in range(0, len(refs), BLOCK):
            for name, array in rows.take(refs[start : start + BLOCK]).named().items():
                writers[name].write(array)
    sync_folder(folder)


def open_segment(folder: Path) -> RowArrays:
    """Map a segment's arrays into memory; nothing is read until it is used.

    Raises:
        IndexRefused: a file is missing or is no array.
    """
    tokens = map_array(folder / "tokens.npy") if (folder / "tokens.npy").exists() else None
    # Format 1 has none, and int8 means nothing without them.
    scaled = tokens is not None and (tokens.dtype == np.int8 or (folder / "scales.npy").exists())
    return RowArrays(
        ret=map_array(folder / "ret.npy"),
        embeddings=map_array(folder / "embeddings.npy"),
        tokens=tokens,
        positions=map_array(folder / "positions.npy") if tokens is not None else None,
        scales=map_array(folder / "scales.npy") if scaled else None,
    )


def map_array(path: Path) -> Array:
    """Map one .npy file into memory.

    Raises:
        IndexRefused: it is missing or is no array.
    """
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise IndexRefused(f"{path} cannot be read ({error}); {REPAIR}.") from error
    return array

"""Segments: immutable folders of rows, one row a distinct photo, ordered by cluster and then by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.errors import REPAIR, IndexRefused
from indexer.files import ArrayWriter, sync_folder

Array = npt.NDArray[Any]
# Rows copied at a time; bounds memory at a few MiB for every network.
BLOCK = 256


@dataclass(frozen=True)
class RowArrays:
    """What is kept of m photos.

    Attributes:
        ret: (m, d) float32, [Ret] as encoded, not normalised.
        embeddings: (m, e) float32, L2-normalised; what is clustered.
        tokens: (m, n, d) float16, [Ret] in row 0; None for networks with a global vector only (n = 1).
        positions: (m, n-1) uint8, cells of the patch grid, ascending; None where ``tokens`` is.
    """

    ret: Array
    embeddings: Array
    tokens: Array | None = None
    positions: Array | None = None

    def __len__(self) -> int:
        return len(self.ret)

    def named(self) -> dict[str, Array]:
        """The arrays there are, by the name of their file."""
        arrays = {"tokens": self.tokens, "positions": self.positions, "ret": self.ret, "embeddings": self.embeddings}
        return {name: array for name, array in arrays.items() if array is not None}


@dataclass(frozen=True)
class RowRef:
    """Where a photo's row is: the name of a segment, or "" for the journal of a running build; and the row in it."""

    source: str
    row: int


class Rows:
    """Rows of several sources, read by reference."""

    def __init__(self, sources: Mapping[str, RowArrays]) -> None:
        self._sources = {name: arrays.named() for name, arrays in sources.items()}

    def fields(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape of one row, and dtype, of every array; the same in all sources."""
        first = next(iter(self._sources.values()))
        return {name: (array.shape[1:], array.dtype) for name, array in first.items()}

    def gather(self, refs: Sequence[RowRef], field: str) -> Array:
        """(len(refs), ...): one array's rows in the order of ``refs``, in memory."""
        shape, dtype = self.fields()[field]
        out = np.empty((len(refs), *shape), dtype)
        for source in {ref.source for ref in refs}:
            places = [place for place, ref in enumerate(refs) if ref.source == source]
            out[places] = self._sources[source][field][[refs[place].row for place in places]]
        return out


def write_segment(folder: Path, rows: Rows, refs: Sequence[RowRef]) -> None:
    """Write the rows, in the order given, as a new segment; synced."""
    folder.mkdir()
    for name, (shape, dtype) in rows.fields().items():
        with ArrayWriter(folder / f"{name}.npy", (len(refs), *shape), dtype) as writer:
            for start in range(0, len(refs), BLOCK):
                writer.write(rows.gather(refs[start : start + BLOCK], name))
    sync_folder(folder)


def open_segment(folder: Path) -> RowArrays:
    """Map a segment's arrays into memory; nothing is read until it is used.

    Raises:
        IndexRefused: a file is missing or is no array.
    """
    pruned = (folder / "tokens.npy").exists()
    return RowArrays(
        ret=map_array(folder / "ret.npy"),
        embeddings=map_array(folder / "embeddings.npy"),
        tokens=map_array(folder / "tokens.npy") if pruned else None,
        positions=map_array(folder / "positions.npy") if pruned else None,
    )


def map_array(path: Path) -> Array:
    """Map one .npy file into memory.

    Raises:
        IndexRefused: it is missing or is no array.
    """
    try:
        # Copy-on-write: torch takes only writable arrays without a warning, and the file itself stays as it is.
        array: Array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise IndexRefused(f"{path} cannot be read ({error}); {REPAIR}.") from error
    return array

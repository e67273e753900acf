"""Slices: what workers have computed of files that were cut off the listing together, on the storage that all share.

A slice is written in a folder of its worker's own, which gets the name of the slice when all is in it. So there are
whole slices only, whoever is killed, and whoever does again what another is still doing. The name has the run of the
build in it, because a worker of a build that was killed may still complete a slice. The folders that workers leave
behind when they are killed say how often that has happened, and with which photo.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from indexer.errors import IndexRefused
from indexer.store import (
    GalleryFile,
    RowArrays,
    Rows,
    StagedRow,
    read_regular,
    sync_folder,
    write_atomically,
    write_segment,
)

_SLICE = re.compile(r"slice-(\d{6,})-[0-9a-f]+")
_RECORDS = "records.json"
_TRYING = "trying"
# Bytes: some 300 a file, of a few thousand files.
_LARGEST = 1 << 30


@dataclass(frozen=True)
class SliceRecords:
    """What became of the files of a slice.

    Attributes:
        files: each of them. contents: the content hashes of its rows, in their order.
    """

    files: tuple[GalleryFile, ...]
    contents: tuple[str, ...]


_DOCUMENT = TypeAdapter(SliceRecords)


class StagedSlice:
    """The rows of a slice, in memory until it is complete."""

    def __init__(self) -> None:
        self.contents: list[str] = []
        self._arrays: list[RowArrays] = []

    def append(self, records: Sequence[GalleryFile], hashes: Sequence[str], arrays: RowArrays | None) -> None:
        """Keep one batch, as a journal does."""
        self.contents += hashes
        if arrays is not None:
            self._arrays.append(arrays)

    def arrays(self) -> RowArrays | None:
        """All rows; None where there are none."""
        if not self._arrays:
            return None
        named = [arrays.named() for arrays in self._arrays]
        parts = {name: [np.asarray(arrays[name]) for arrays in named] for name in named[0]}
        return RowArrays.of_named({name: np.concatenate(of_name) for name, of_name in parts.items()})


class Slices:
    """The slices of a build in its folder. They are named by their number and the run of the build, in hex digits."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self._run = run

    def names(self) -> list[str]:
        """The names of those that are complete, of all runs, in the order of their numbers."""
        return sorted(
            (entry.name for entry in self.folder.iterdir() if _SLICE.fullmatch(entry.name)),
            key=lambda name: (_number(name), name),
        )

    def next_number(self) -> int:
        """A number above those of all complete slices."""
        return max((_number(name) for name in self.names()), default=-1) + 1

    def name(self, number: int) -> str:
        """The name of a slice of this run."""
        return f"slice-{number:06d}-{self._run}"

    def records(self, name: str) -> SliceRecords:
        """What became of its files. Raises IndexRefused: it is damaged."""
        path = self.folder / name / _RECORDS
        try:
            return _DOCUMENT.validate_json(read_regular(path, _LARGEST))
        except (OSError, ValidationError) as error:
            raise IndexRefused(f"{path} cannot be read; delete {path.parent}, and run the same again.") from error

    def is_done(self, number: int) -> bool:
        """Whether it is complete."""
        return (self.folder / self.name(number)).is_dir()

    def begin(self, number: int) -> Attempt:
        """Begin to write a slice, in a new folder."""
        before = sorted(self.folder.glob(f"attempt-{self.name(number)}-*"))
        attempt = self.folder / f"attempt-{self.name(number)}-{uuid.uuid4().hex}"
        attempt.mkdir()
        return Attempt(attempt, self.folder / self.name(number), before)

    def forget_attempts(self) -> None:
        """Delete what killed workers have left, before a build gives out new slices."""
        for left in self.folder.glob("attempt-*"):
            # A worker of a build that was killed may still be writing.
            shutil.rmtree(left, ignore_errors=True)


def _number(name: str) -> int:
    match = _SLICE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no slice")
    return int(match[1])


class Attempt:
    """One worker's attempt to write a slice.

    Attributes:
        deaths: how many attempts before it have ended without a slice.
    """

    def __init__(self, folder: Path, final: Path, before: Sequence[Path]) -> None:
        self._folder = folder
        self._final = final
        self._before = before
        self.deaths = len(before)

    def deaths_at(self) -> Mapping[int, int]:
        """How many attempts have ended with each file, by its number in the slice, where files were tried singly."""
        found = Counter[int]()
        for folder in self._before:
            try:
                found[int((folder / _TRYING).read_text())] += 1
            except (OSError, ValueError):
                continue
        return found

    def trying(self, file: int) -> None:
        """Say which file comes next, so that it is known if the worker ends with it."""
        write_atomically(self._folder / _TRYING, str(file).encode())

    def complete(self, records: SliceRecords, staged: StagedSlice) -> None:
        """Make it the slice, unless another attempt has come first."""
        if (arrays := staged.arrays()) is not None:
            refs = [StagedRow(number) for number in range(len(arrays))]
            write_segment(self._folder / "rows", Rows({}, arrays), refs, with_vectors=True)
        write_atomically(self._folder / _RECORDS, _DOCUMENT.dump_json(records))
        try:
            os.rename(self._folder, self._final)
        except OSError:
            if not self._final.is_dir():
                raise
            shutil.rmtree(self._folder, ignore_errors=True)
        sync_folder(self._final.parent)

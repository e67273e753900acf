"""Slices: what workers have computed of files that were listed together, on the storage that all share.

A worker writes the journal of a slice in a folder of its own, which gets the name of the slice when all is in it. So
there are whole slices only, whoever is killed, and whoever does again what another is still doing. The name has the run
of the build in it, because a worker of a build that was killed may still complete a slice.
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from indexer.building.staging import Journal
from indexer.store.files import sync_folder
from indexer.store.generation import open_generation, open_rows
from indexer.store.location import IndexFolder, refuse_if_unwritable
from indexer.store.rows import RowArrays

_SLICE = re.compile(r"slice-(\d{6,})-[0-9a-f]+")
# Each source has up to five arrays mapped into memory, and Linux lets a process have 65,530 of them.
_MAX_OPEN = 8_000


class Slices:
    """The slices of a build in its folder. They are named by their number and the run of the build, in hex digits."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self._run = run

    def names(self) -> list[str]:
        """Lists the names of the complete slices of all runs, in the order of their numbers."""
        return sorted(
            (entry.name for entry in self.folder.iterdir() if _SLICE.fullmatch(entry.name)),
            key=lambda name: (_number(name), name),
        )

    def next_number(self) -> int:
        return max((_number(name) for name in self.names()), default=-1) + 1

    def name(self, number: int) -> str:
        return f"slice-{number:06d}-{self._run}"

    def journal(self, name: str) -> Journal:
        return Journal(self.folder / name, complete=True)

    def is_done(self, number: int) -> bool:
        return (self.folder / self.name(number)).is_dir()

    def begin(self, number: int) -> Path:
        """Makes a new folder in which a worker writes a slice."""
        attempt = self.folder / f"attempt-{self.name(number)}-{uuid.uuid4().hex}"
        with refuse_if_unwritable(self.folder):
            attempt.mkdir()
        return attempt

    def complete(self, attempt: Path, number: int) -> None:
        """Turns a folder that ``begin`` has made into the slice, unless another worker has done so first."""
        final = self.folder / self.name(number)
        with refuse_if_unwritable(self.folder):
            try:
                os.rename(attempt, final)
            except OSError:
                if not final.is_dir():
                    raise
                shutil.rmtree(attempt, ignore_errors=True)
            sync_folder(self.folder)

    def forget_attempts(self) -> None:
        """Deletes what killed workers have left, before a build gives out new slices."""
        for left in self.folder.glob("attempt-*"):
            # A worker of a build that was killed may still be writing.
            shutil.rmtree(left, ignore_errors=True)


def _number(name: str) -> int:
    match = _SLICE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no slice")
    return int(match[1])


class Sources(Mapping[str, RowArrays]):
    """The folders that rows are read from, by name: slices, and segments of shards. Each is opened when it is needed.

    Names are "slice-000017-1f2e3d4c", or "shard-0003/g000002/s000001-0a1b2c3d", a segment of a generation of a shard.
    """

    def __init__(self, shards: Path, slices: Slices, names: Iterable[str]) -> None:
        self._shards, self._slices = shards, slices
        self._names = tuple(sorted(set(names)))
        self._open = lru_cache(maxsize=_MAX_OPEN)(self._open_now)

    def __getitem__(self, name: str) -> RowArrays:
        return self._open(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _open_now(self, name: str) -> RowArrays:
        if "/" not in name:
            with closing(self._slices.journal(name)) as journal:
                return journal.arrays() or RowArrays({})
        shard, generation, segment = name.split("/")
        folder = IndexFolder(self._shards / shard)
        opened = open_generation(folder, generation)
        others = [entry.id for entry in opened.manifest.segments if entry.id != segment]
        return open_rows(folder, opened, skipped=others)[segment]

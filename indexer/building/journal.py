"""The journal of a running build: the rows that it has computed, so that a killed build can be continued.

A batch's arrays are first appended to raw files, and then its records are committed to SQLite. Where a build is killed
between the two, there are rows in the files that no record knows. The next batch overwrites them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from indexer.store import (
    Array,
    DayTaken,
    FileKey,
    FileStamp,
    RowArrays,
    from_column,
    from_columns,
    sync_folder,
    to_column,
    to_columns,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrays (name TEXT PRIMARY KEY, shape TEXT NOT NULL, dtype TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (row INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS files (
    root INTEGER NOT NULL, path TEXT NOT NULL, hash TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    ctime INTEGER, taken INTEGER, reason TEXT, PRIMARY KEY (root, path)
);
"""


@dataclass(frozen=True)
class BuildSettings:
    """What staged rows depend on. Rows that were staged with other settings are never used.

    Attributes:
        checkpoint_sha256, preprocessing_fingerprint: of the network.
        embedder: its name, and the hash of its weights.
        roots: absolute paths, in order.
        format_version: the index format in which rows are staged.
    """

    checkpoint_sha256: str
    preprocessing_fingerprint: str
    embedder: tuple[str, str | None]
    roots: tuple[str, ...]
    format_version: int

    @property
    def key(self) -> str:
        """16 hex digits. They name the folder of the build, and differ where any setting differs."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class FileRecord:
    """What became of one file that was read.

    Attributes:
        root, path: which file, as in ``FoundFile``.
        content_hash: SHA-256 of its bytes, hex; None where they could not be read.
        stamp: its size and times when it was read; None where the next build is to try again, because the file could
            not be read, its decoder is missing, or memory ran out.
        reason: why it cannot be indexed; None where it can.
        taken: what its content says of the day on which it was taken; None where nobody has looked.
    """

    root: int
    path: str
    content_hash: str | None
    stamp: FileStamp | None
    reason: str | None = None
    taken: DayTaken | None = None

    @property
    def key(self) -> FileKey:
        """Where the file is in the gallery."""
        return self.root, self.path


class Journal:
    """The journal in one folder, which is made where it does not exist. Close it before the folder is deleted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._database = sqlite3.connect(folder / "journal.sqlite")
        self._database.executescript(_SCHEMA)
        self._count: int = self._database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        """Close the files."""
        self._database.close()

    def __len__(self) -> int:
        return self._count

    def rows(self) -> dict[str, int]:
        """The numbers of the staged rows, by content hash."""
        return dict(self._database.execute("SELECT hash, row FROM rows"))

    def records(self) -> dict[FileKey, FileRecord]:
        """What became of the files that were read."""
        query = "SELECT root, path, hash, size, mtime, ctime, reason, taken FROM files"
        records: dict[FileKey, FileRecord] = {}
        for root, path, content_hash, *times, reason, taken in self._database.execute(query):
            stamp = from_columns(*times)
            records[root, path] = FileRecord(root, path, content_hash or None, stamp, reason, from_column(taken))
        return records

    def append(self, records: Sequence[FileRecord], hashes: Sequence[str], arrays: RowArrays | None) -> None:
        """Commit one batch.

        Args:
            records: what became of its files. hashes: the content hashes of its new rows.
            arrays: these rows; None where there are none.
        """
        if arrays is not None:
            self._append_arrays(arrays)
        with self._database:
            self._database.executemany(
                "INSERT INTO rows (row, hash) VALUES (?, ?)",
                [(row, content_hash) for row, content_hash in enumerate(hashes, self._count)],
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO files (root, path, hash, size, mtime, ctime, reason, taken) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (r.root, r.path, r.content_hash or "", *to_columns(r.stamp), r.reason, to_column(r.taken))
                    for r in records
                ],
            )
        self._count += len(hashes)

    def _append_arrays(self, arrays: RowArrays) -> None:
        named = arrays.named()
        with self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO arrays (name, shape, dtype) VALUES (?, ?, ?)",
                [(name, json.dumps(array.shape[1:]), array.dtype.str) for name, array in named.items()],
            )
        for name, array in named.items():
            path = self._folder / f"{name}.raw"
            with path.open("r+b" if path.exists() else "wb") as file:
                file.seek(self._count * array[0].nbytes)
                file.write(np.ascontiguousarray(array).tobytes())
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        sync_folder(self._folder)

    def arrays(self) -> RowArrays | None:
        """All staged rows, mapped into memory; None while there are none."""
        if not self._count:
            return None
        found: dict[str, Array] = {}
        for name, shape, dtype in self._database.execute("SELECT name, shape, dtype FROM arrays"):
            full = (self._count, *json.loads(shape))
            found[name] = np.memmap(self._folder / f"{name}.raw", dtype=dtype, mode="r", shape=full)
        return RowArrays.of_named(found)

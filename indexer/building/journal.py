"""The journal of a running build: rows already computed, so that a build killed at any point goes on from there.

Arrays are appended to raw files and then their records are committed to SQLite. Rows past the last commit are what a
killed build left half written; the next batch overwrites them.
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

from indexer.store import Array, RowArrays, sync_folder

_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrays (name TEXT PRIMARY KEY, shape TEXT NOT NULL, dtype TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (row INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS files (
    root INTEGER NOT NULL, path TEXT NOT NULL, hash TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    reason TEXT, PRIMARY KEY (root, path)
);
"""


@dataclass(frozen=True)
class BuildSettings:
    """What staged rows depend on; rows staged under other settings are never used.

    Attributes:
        checkpoint_sha256, preprocessing_fingerprint: of the matcher.
        embedder: its ``--embedder`` value and the hash of its weights.
        roots: absolute paths, in order.
        format_version: in which rows are staged.
    """

    checkpoint_sha256: str
    preprocessing_fingerprint: str
    embedder: tuple[str, str | None]
    roots: tuple[str, ...]
    format_version: int

    @property
    def key(self) -> str:
        """16 hex digits that differ where any setting does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class FileRecord:
    """What reading one file came to.

    Attributes:
        root, path: which file, as in FoundFile.
        hash: SHA-256 of its content, hex; empty where it could not be read.
        size: bytes, -1 where the next build is to try again: it could not be read, its decoder is missing, or memory
            ran out. mtime: ns, 0 where size is -1.
        reason: why it cannot be indexed, or None.
    """

    root: int
    path: str
    hash: str
    size: int
    mtime: int
    reason: str | None


class Journal:
    """The journal in one folder; created where there is none. Close it before deleting the folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._database = sqlite3.connect(folder / "journal.sqlite")
        self._database.executescript(_SCHEMA)
        self._count: int = self._database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        """Let go of the files."""
        self._database.close()

    def __len__(self) -> int:
        return self._count

    def rows(self) -> dict[str, int]:
        """Staged rows by content hash."""
        return dict(self._database.execute("SELECT hash, row FROM rows"))

    def records(self) -> dict[tuple[int, str], FileRecord]:
        """Files already read, by (root, path)."""
        query = "SELECT root, path, hash, size, mtime, reason FROM files"
        found = [FileRecord(*row) for row in self._database.execute(query)]
        return {(record.root, record.path): record for record in found}

    def append(self, records: Sequence[FileRecord], hashes: Sequence[str], arrays: RowArrays | None) -> None:
        """Commit one batch: what its files came to, and the new rows with their content hashes."""
        if arrays is not None:
            self._append_arrays(arrays)
        with self._database:
            first = self._count
            self._database.executemany(
                "INSERT INTO rows (row, hash) VALUES (?, ?)", [(first + i, name) for i, name in enumerate(hashes)]
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO files (root, path, hash, size, mtime, reason) VALUES (?, ?, ?, ?, ?, ?)",
                [(r.root, r.path, r.hash, r.size, r.mtime, r.reason) for r in records],
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
        return RowArrays(**found)

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
from datetime import date
from pathlib import Path

import numpy as np

from indexer.store import (
    Array,
    FileKey,
    GalleryFile,
    RowArrays,
    content_columns,
    file_of_columns,
    has_schema,
    sync_folder,
    told_if_unwritable,
)

_SCHEMA = """
CREATE TABLE arrays (name TEXT PRIMARY KEY, shape TEXT NOT NULL, dtype TEXT NOT NULL);
CREATE TABLE rows (row INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, taken INTEGER);
CREATE TABLE files (
    root INTEGER NOT NULL, path TEXT NOT NULL, hash TEXT, size INTEGER, mtime INTEGER, ctime INTEGER, taken INTEGER,
    reason TEXT, PRIMARY KEY (root, path)
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


class Journal:
    """The journal in one folder, which is made where it does not exist. Close it before the folder is deleted.

    One that another program has written is begun anew. IndexUnwritable: where it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with told_if_unwritable(folder):
            self._database = _opened(folder)
        self._count: int = self._database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        """Close the files."""
        self._database.close()

    def __len__(self) -> int:
        return self._count

    def rows(self) -> dict[str, int]:
        """The numbers of the staged rows, by content hash."""
        return dict(self._database.execute("SELECT hash, row FROM rows"))

    def days(self) -> dict[str, date | None]:
        """The days on which the staged photos were taken, by content hash; None for one that says none."""
        rows = self._database.execute("SELECT hash, taken FROM rows")
        return {content: None if taken is None else date.fromordinal(taken) for content, taken in rows}

    def records(self) -> dict[FileKey, GalleryFile]:
        """What became of the files that were read."""
        rows = self._database.execute("SELECT root, path, hash, size, mtime, ctime, taken, reason FROM files")
        files = [file_of_columns(row) for row in rows]
        return {file.key: file for file in files}

    def append(self, records: Sequence[GalleryFile], hashes: Sequence[str], arrays: RowArrays | None) -> None:
        """Commit one batch.

        Args:
            records: what became of its files. hashes: the content hashes of its new rows.
            arrays: these rows; None where there are none.
        """
        with told_if_unwritable(self._folder):
            if arrays is not None:
                self._append_arrays(arrays)
            taken = {file.content_hash: file.taken.toordinal() for file in records if file.taken is not None}
            with self._database:
                self._database.executemany(
                    "INSERT INTO rows (row, hash, taken) VALUES (?, ?, ?)",
                    [(row, content, taken.get(content)) for row, content in enumerate(hashes, self._count)],
                )
                self._database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(content_columns, records)
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


def _opened(folder: Path) -> sqlite3.Connection:
    folder.mkdir(exist_ok=True)
    path = folder / "journal.sqlite"
    database = sqlite3.connect(path)
    if not has_schema(database, _SCHEMA):
        database.close()
        path.unlink()
        database = sqlite3.connect(path)
        database.executescript(_SCHEMA)
    return database

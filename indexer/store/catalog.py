"""The catalog: one SQLite file a generation, with every file that has ever had an id."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from indexer.errors import REPAIR, IndexRefused, IndexTooNew
from indexer.store.drift import Drift
from indexer.store.removals import Removal, Removals

SCHEMA_VERSION = 1
Status = Literal["indexed", "bad", "gone"]

_SCHEMA = """
CREATE TABLE photos (
    id INTEGER PRIMARY KEY,
    root INTEGER NOT NULL,
    path TEXT NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('indexed', 'bad', 'gone')),
    reason TEXT,
    cluster INTEGER,
    segment TEXT,
    row INTEGER
);
CREATE INDEX photos_by_row ON photos (segment, row);
CREATE TABLE removals (root INTEGER NOT NULL, path TEXT NOT NULL, removed INTEGER NOT NULL, PRIMARY KEY (root, path));
CREATE TABLE drift (
    clustered INTEGER NOT NULL, distance REAL NOT NULL, photos INTEGER NOT NULL, distance_now REAL NOT NULL,
    automatic INTEGER NOT NULL
);
"""
_COLUMNS = "id, root, path, hash, size, mtime, status, reason, cluster, segment, row"


@dataclass(frozen=True)
class Photo:
    """One file. Files of equal content share (segment, row).

    Attributes:
        id: never given to another path. root, path: where it is, ``path`` relative to the root with '/'.
        hash: SHA-256 of its bytes, hex; empty where they could not be read.
        size: bytes; -1 where the next build is to try again: it could not be read, its decoder is missing, or memory
            ran out. mtime: ns, 0 where size is -1.
        status: "indexed", "bad" (see ``reason``), or "gone" from disk or removed by the user.
        cluster, segment, row: where its tokens are; None for those that have none.
    """

    id: int
    root: int
    path: str
    hash: str
    size: int
    mtime: int
    status: Status
    reason: str | None = None
    cluster: int | None = None
    segment: str | None = None
    row: int | None = None


@dataclass(frozen=True)
class ShownRow:
    """A row of a segment that is shown, and the lowest live id among the files that share it."""

    id: int
    cluster: int
    segment: str
    row: int


def write_catalog(path: Path, photos: Iterable[Photo], removals: Removals, drift: Drift | None) -> None:
    """Write a new catalog; the same contents give the same bytes."""
    with closing(sqlite3.connect(path)) as database:
        # Nobody reads the file before it is complete, so one sync at the end does for all.
        database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;{_SCHEMA}")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        columns = _COLUMNS.split(", ")
        marks = ", ".join("?" * len(columns))
        database.executemany(f"INSERT INTO photos ({_COLUMNS}) VALUES ({marks})", map(attrgetter(*columns), photos))
        database.executemany("INSERT INTO removals (root, path, removed) VALUES (?, ?, ?)", map(astuple, removals))
        if drift is not None:
            database.execute("INSERT INTO drift VALUES (?, ?, ?, ?, ?)", astuple(drift))
        database.commit()
    with path.open("r+b") as file:
        os.fsync(file.fileno())


class Catalog:
    """A catalog opened for reading.

    Raises:
        IndexRefused: it cannot be opened, is no catalog, or one of a newer schema; and from any method, since pages
            are read when they are needed: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Threads of a server share it; the reader guards every call with a lock.
            self._database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise IndexRefused(f"{path} cannot be opened ({error}); check its permissions.") from error
        try:
            ((version,),) = self._rows("PRAGMA user_version")
        except IndexRefused:
            self._database.close()
            raise
        if version != SCHEMA_VERSION:
            self._database.close()
            if version < SCHEMA_VERSION:
                raise IndexRefused(f"{path} is no catalog; {REPAIR}.")
            raise IndexTooNew(
                f"{path} has catalog version {version}, and this program reads {SCHEMA_VERSION}; "
                "update the program, or build a new index."
            )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def photos(self) -> list[Photo]:
        """Every entry, by id."""
        return [Photo(*row) for row in self._rows(f"SELECT {_COLUMNS} FROM photos ORDER BY id")]

    def bad(self) -> list[Photo]:
        """The files that cannot be indexed, by id."""
        query = f"SELECT {_COLUMNS} FROM photos WHERE status = 'bad' ORDER BY id"
        return [Photo(*row) for row in self._rows(query)]

    def removals(self) -> Removals:
        """What the user removed; nothing in catalogs written before that could be done."""
        if not self._has("removals"):
            return Removals()
        rules = self._rows("SELECT root, path, removed FROM removals")
        return Removals(Removal(root, path, bool(removed)) for root, path, removed in rules)

    def drift(self) -> Drift | None:
        """How well the clusters fit; None where the program that made them did not measure it."""
        if not self._has("drift"):
            return None
        found = self._rows("SELECT clustered, distance, photos, distance_now, automatic FROM drift")
        for clustered, distance, photos, distance_now, automatic in found:
            return Drift(clustered, distance, photos, distance_now, bool(automatic))
        return None

    def _has(self, table: str) -> bool:
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", table))

    def shown(self) -> list[ShownRow]:
        """Every row that is shown, by cluster and then by id."""
        query = """SELECT MIN(id) AS first, cluster, segment, row FROM photos WHERE status = 'indexed'
                   GROUP BY segment, row ORDER BY cluster, first"""
        return [ShownRow(*row) for row in self._rows(query)]

    def sharing(self, photo: int) -> Sequence[Photo]:
        """The live files with the content of this live photo, itself included, by id; empty for any other id."""
        query = f"""SELECT {_COLUMNS} FROM photos WHERE status = 'indexed' AND (segment, row) =
                    (SELECT segment, row FROM photos WHERE id = ? AND status = 'indexed') ORDER BY id"""
        return [Photo(*row) for row in self._rows(query, photo)]

    def _rows(self, query: str, *values: int | str) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.ProgrammingError:
            # The caller's mistake, such as reading on after close; it says nothing about the file.
            raise
        except sqlite3.Error as error:
            raise IndexRefused(f"{self._path} is damaged ({error}); {REPAIR}.") from error


def read_catalog(path: Path) -> list[Photo]:
    """Every entry of a catalog, by id.

    Raises:
        IndexRefused: it is no catalog, one of a newer schema, or damaged.
    """
    with closing(Catalog(path)) as catalog:
        return catalog.photos()


def read_drift(path: Path) -> Drift | None:
    """How well the clusters of a generation fit, by its catalog; None where that was not measured.

    Raises:
        IndexRefused: as ``read_catalog`` does.
    """
    with closing(Catalog(path)) as catalog:
        return catalog.drift()

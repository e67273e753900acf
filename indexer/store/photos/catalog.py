"""The catalog: one SQLite file in each generation, with every file that has ever had an id."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from indexer.errors import REPAIR, IndexRefused, OtherFormat
from indexer.store.arrays import Drift, SegmentRow
from indexer.store.photos.days import MOST_DAYS, DayTaken, from_column, to_column
from indexer.store.photos.photo_filter import PhotoFilter
from indexer.store.photos.removals import Removal, Removals
from indexer.store.stamps import FileStamp, from_columns, to_columns

# 2: with ctime. 3: with the day taken. Catalogs of version 1, in an index of format 2, and of version 2, in one of
# format 3, are read all the same.
SCHEMA_VERSION = 3
Status = Literal["indexed", "bad", "gone"]

_SCHEMA = """
CREATE TABLE photos (
    id INTEGER PRIMARY KEY,
    root INTEGER NOT NULL,
    path TEXT NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    ctime INTEGER,
    taken INTEGER,
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
_COLUMNS = "id, root, path, hash, size, mtime, ctime, taken, status, reason, cluster, segment, row"
_TAKEN_OF_1_AND_2 = "NULL"
_COLUMNS_OF_2 = _COLUMNS.replace("taken", _TAKEN_OF_1_AND_2)
# What cannot be indexed is tried again: version 1 had fewer kinds of names.
_STAMP_OF_1 = "CASE status WHEN 'bad' THEN -1 ELSE size END, CASE status WHEN 'bad' THEN 0 ELSE mtime END, NULL"
_COLUMNS_OF_1 = _COLUMNS_OF_2.replace("size, mtime, ctime", _STAMP_OF_1)
_COLUMNS_OF = {1: _COLUMNS_OF_1, 2: _COLUMNS_OF_2, SCHEMA_VERSION: _COLUMNS}
# An index may come from anywhere, and may be damaged: what each column may hold.
_Number = Annotated[int, Field(ge=0, le=2**40)]
_Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Perhaps = _Number | None
_Time = int | None
_Day = Annotated[int, Field(ge=0, le=MOST_DAYS)] | None
_Text = str | None
_FILE_ROWS = TypeAdapter(
    list[tuple[_Number, _Number, str, str, int, int, _Time, _Day, Status, _Text, _Perhaps, _Text, _Perhaps]]
)
_REMOVAL_ROWS = TypeAdapter(list[tuple[_Number, str, _Number]])
_DRIFT_ROWS = TypeAdapter(list[tuple[_Number, _Distance, _Number, _Distance, _Number]])
Row = TypeVar("Row")


@dataclass(frozen=True)
class IndexedContent:
    """Where the index has the content of a file: the row of its tokens, and its cluster, counted from 0."""

    row: SegmentRow
    cluster: int


@dataclass(frozen=True)
class CatalogFile:
    """One file of the gallery. Files of equal content share one row, and are one photo to those who search.

    Attributes:
        id: its number, from 1. It is never given to another path.
        root, path: where the file is. ``root`` counts the manifest's roots from 0; ``path`` is relative to the root,
            with '/'.
        content_hash: SHA-256 of its bytes, hex; None where they could not be read.
        stamp: the file's when it was read; None where the next build is to try again, because the file could not be
            read, its decoder is missing, or memory ran out.
        status: "indexed"; "bad", see ``reason``; or "gone", from disk or because the user removed it.
        indexed: where its content is in the index; None where it is not there.
        taken: what its content says of the day on which it was taken; None where no build has looked, because it was
            built before there were such days, or the file cannot be indexed.
    """

    id: int
    root: int
    path: str
    content_hash: str | None
    stamp: FileStamp | None
    status: Status
    reason: str | None = None
    indexed: IndexedContent | None = None
    taken: DayTaken | None = None

    @property
    def shown_content(self) -> str | None:
        """The hash of the content that searches show because of this file; None where they show none."""
        return self.content_hash if self.status == "indexed" else None


@dataclass(frozen=True)
class ShownRow:
    """A row of a segment that is shown, and the lowest id among the indexed files that share it."""

    id: int
    cluster: int
    segment: str
    row: int


def write_catalog(path: Path, files: Iterable[CatalogFile], removals: Removals, drift: Drift) -> None:
    """Write a new catalog. The same contents give the same bytes."""
    with closing(sqlite3.connect(path)) as database:
        # Nobody reads the file before it is complete, so one sync at the end is enough.
        database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;{_SCHEMA}")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        marks = ", ".join("?" * len(_COLUMNS.split(", ")))
        database.executemany(f"INSERT INTO photos ({_COLUMNS}) VALUES ({marks})", map(_to_row, files))
        rules = [(rule.root, rule.path, rule.removed) for rule in removals]
        database.executemany("INSERT INTO removals (root, path, removed) VALUES (?, ?, ?)", rules)
        database.execute(
            "INSERT INTO drift VALUES (?, ?, ?, ?, ?)",
            (drift.clustered, drift.distance, drift.photos, drift.distance_now, drift.automatic),
        )
        database.commit()
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _to_row(file: CatalogFile) -> tuple[int | str | None, ...]:
    location: tuple[int, str, int] | tuple[None, None, None] = (None, None, None)
    if file.indexed is not None:
        location = (file.indexed.cluster, file.indexed.row.segment, file.indexed.row.number)
    times = (*to_columns(file.stamp), to_column(file.taken))
    return (file.id, file.root, file.path, file.content_hash or "", *times, file.status, file.reason, *location)


def _from_row(columns: tuple[Any, ...]) -> CatalogFile:
    number, root, path, content_hash, size, mtime, ctime, taken, status, reason, cluster, segment, row = columns
    indexed = None
    if cluster is not None and segment is not None and row is not None:
        indexed = IndexedContent(SegmentRow(segment, row), cluster)
    return CatalogFile(
        number,
        root,
        path,
        content_hash or None,
        from_columns(size, mtime, ctime),
        status,
        reason=reason,
        indexed=indexed,
        taken=from_column(taken),
    )


class Catalog:
    """A catalog opened for reading.

    Args:
        roots, clusters: how many the manifest has, where that is known: a file of others is damage.

    Raises:
        IndexRefused: it cannot be opened, is no catalog, or has another schema. Every method raises it too where the
            file is damaged, since pages are read when they are needed.
    """

    def __init__(self, path: Path, *, roots: int | None = None, clusters: int | None = None) -> None:
        self._path, self._roots, self._clusters = path, roots, clusters
        try:
            # A server's threads share the connection, and the reader guards every call with a lock.
            self._database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise IndexRefused(f"{path} cannot be opened ({error}); check its permissions.") from error
        try:
            ((version,),) = self._rows("PRAGMA user_version")
        except IndexRefused:
            self._database.close()
            raise
        self._columns = _COLUMNS_OF.get(version, _COLUMNS)
        self._taken = "taken" if version == SCHEMA_VERSION else _TAKEN_OF_1_AND_2
        if version not in _COLUMNS_OF:
            self._database.close()
            if version < SCHEMA_VERSION:
                raise IndexRefused(f"{path} is no catalog; {REPAIR}.")
            raise OtherFormat(
                f"{path} has catalog version {version}, and this program reads {SCHEMA_VERSION}; "
                "update the program, or build a new index."
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def files(self) -> list[CatalogFile]:
        """Every entry, by id."""
        return self._files(f"SELECT {self._columns} FROM photos ORDER BY id")

    def bad(self) -> list[CatalogFile]:
        """The files that cannot be indexed, by id."""
        query = f"SELECT {self._columns} FROM photos WHERE status = 'bad' ORDER BY id"
        return self._files(query)

    def removals(self) -> Removals:
        """What the user removed."""
        rules = self._checked(_REMOVAL_ROWS, self._rows("SELECT root, path, removed FROM removals"))
        for root, _, _ in rules:
            self._check_root(root)
        return Removals(Removal(root, path, bool(removed)) for root, path, removed in rules)

    def drift(self) -> Drift:
        """How well the clusters fit the photos."""
        found = self._rows("SELECT clustered, distance, photos, distance_now, automatic FROM drift")
        for clustered, distance, photos, distance_now, automatic in self._checked(_DRIFT_ROWS, found):
            return Drift(clustered, distance, photos, distance_now, bool(automatic))
        raise IndexRefused(f"{self._path} does not say how well the clusters fit; {REPAIR}.")

    def shown(self) -> list[ShownRow]:
        """Every row that is shown, by cluster and then by id."""
        query = """SELECT MIN(id) AS first, cluster, segment, row FROM photos WHERE status = 'indexed'
                   GROUP BY segment, row ORDER BY cluster, first"""
        return [ShownRow(*row) for row in self._rows(query)]

    def sharing(self, photo: int) -> Sequence[CatalogFile]:
        """The indexed files that have the content of this indexed file, itself included, by id; else none."""
        query = f"""SELECT {self._columns} FROM photos WHERE status = 'indexed' AND (segment, row) =
                    (SELECT segment, row FROM photos WHERE id = ? AND status = 'indexed') ORDER BY id"""
        return self._files(query, photo)

    def at(self, root: int, path: str) -> int | None:
        """The id of the indexed file at this place; None where there is none."""
        query = "SELECT id FROM photos WHERE root = ? AND path = ? AND status = 'indexed'"
        return next((int(number) for (number,) in self._rows(query, root, path)), None)

    def undated(self) -> int:
        """How many indexed files there are in which no build has looked for the day on which they were taken."""
        query = f"SELECT COUNT(*) FROM photos WHERE status = 'indexed' AND {self._taken} IS NULL"
        ((count,),) = self._rows(query)
        return int(count)

    def rows_of(self, wanted: PhotoFilter, names: Sequence[str]) -> list[tuple[str, int]]:
        """Segment and row of each indexed file that passes; one that several files share may be there several times.

        names: of the roots.
        """
        conditions, values = ["status = 'indexed'"], list[int | str]()
        if (folders := wanted.folder_keys(names)) is not None:
            below = ["0"]
            for root, path in folders:
                # '0' is the character after '/'.
                below.append("root = ? AND path >= ? AND path < ?" if path else "root = ?")
                values += [root, f"{path}/", f"{path}0"] if path else [root]
            conditions.append(f"({' OR '.join(below)})")
        # Where the file says no day, or nobody has looked for one, the day of its last change counts.
        for day, of_day, changed, of_change in (
            (wanted.after, f"{self._taken} >= ?", wanted.since, "mtime >= ?"),
            (wanted.before, f"{self._taken} <= ?", wanted.until, "mtime < ?"),
        ):
            if day is not None and changed is not None:
                conditions.append(f"CASE WHEN {self._taken} > 0 THEN {of_day} ELSE {of_change} END")
                values += [day.toordinal(), changed]
        return self._rows(f"SELECT segment, row FROM photos WHERE {' AND '.join(conditions)}", *values)

    def _files(self, query: str, *values: int) -> list[CatalogFile]:
        files = [_from_row(row) for row in self._checked(_FILE_ROWS, self._rows(query, *values))]
        for file in files:
            self._check_root(file.root)
            if self._clusters is not None and file.indexed is not None and file.indexed.cluster >= self._clusters:
                raise IndexRefused(f"{self._path} is damaged (photo {file.id} is in no cluster); {REPAIR}.")
        return files

    def _check_root(self, root: int) -> None:
        if self._roots is not None and root >= self._roots:
            raise IndexRefused(f"{self._path} is damaged (there is no root {root}); {REPAIR}.")

    def _checked(self, kind: TypeAdapter[list[Row]], rows: list[tuple[Any, ...]]) -> list[Row]:
        """The rows, once their values have the types and bounds that ``kind`` says: SQLite keeps any in any column."""
        try:
            return kind.validate_python(rows, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise IndexRefused(
                f"{self._path} is damaged ({first['msg']}: {first['input']!r:.40}); {REPAIR}."
            ) from error

    def _rows(self, query: str, *values: int | str) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.ProgrammingError:
            # A mistake of the caller, such as reading after close. It says nothing about the file.
            raise
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CANTOPEN:
                raise IndexRefused(f"{self._path} cannot be opened ({error}); check its permissions.") from error
            raise IndexRefused(f"{self._path} is damaged ({error}); {REPAIR}.") from error


def read_catalog(path: Path, *, roots: int | None = None) -> list[CatalogFile]:
    """Every entry of a catalog, by id.

    Args:
        roots: as of ``Catalog``.

    Raises:
        IndexRefused: it is no catalog, has another schema, or is damaged.
    """
    with closing(Catalog(path, roots=roots)) as catalog:
        return catalog.files()


def read_drift(path: Path) -> Drift:
    """How well the clusters of a generation fit its photos, by its catalog.

    Raises:
        IndexRefused: as ``read_catalog`` does.
    """
    with closing(Catalog(path)) as catalog:
        return catalog.drift()

"""The catalog: one SQLite file in each generation, with every file that ever had an id, removals, and filters."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sketch_search.indexer.errors import REPAIR, IndexDamaged, unreadable
from sketch_search.indexer.store.files import MAX_TIME, MIN_TIME, FileStamp, is_unicode, spellings
from sketch_search.indexer.store.location import FileKey, key_shown, with_folders
from sketch_search.model.limits import pause

CATALOG_FILE = "photos.sqlite"
_NS = 10**9
_DAY = 86400 * _NS
# The Julian day that begins before the first ordinal.
_JULIAN = 1721424.5
# The day of a file, by `Day.number`: its own, or that of its last change in local time, as the filters count.
# SQLite divides towards 0, and its days are Julian.
_SECONDS = f"(mtime - (mtime < 0) * {_NS - 1}) / {_NS}"
_DATED = f"coalesce(taken, CAST(julianday(date({_SECONDS}, 'unixepoch', 'localtime')) - {_JULIAN} AS INTEGER))"
# A time near 0 is from a program that knew none.
_CHANGED = f"mtime NOT BETWEEN {-_DAY} AND {365 * _DAY}"
# Steps of SQLite's machine, a few milliseconds, between two pauses of a query.
_STEPS = 20_000
# The first year whose local times all systems can convert, and the last whose times SQLite can store.
_FIRST_YEAR, _LAST_YEAR = 1971, 2261


@dataclass(frozen=True, slots=True)
class GalleryFile:
    """A file of the gallery. Files of equal content share one row, and are one photo in searches.

    root, path: the root's number, and the path by ``text_of_name``. stamp: None if the next build is to try again.
    content_hash: SHA-256, None if unread. reason: why it cannot be indexed. taken: its day, if known, by `Day.number`.
    id: from 1, never another path's; 0 before it has one. cluster: None if it is not in the index.
    """

    root: int
    path: str
    stamp: FileStamp | None
    content_hash: str | None = None
    reason: str | None = None
    taken: float | None = None
    id: int = 0
    cluster: int | None = None


@dataclass(frozen=True)
class Removals:
    """The user's rules: True for a file or folder that is removed, False if it was added again inside.

    The nearest rule holds: a file's own, else its folder's, and so on, also for files that come later.
    """

    rules: Mapping[FileKey, bool] = field(default_factory=dict)

    def hides(self, root: int, path: str) -> bool:
        if not self.rules:
            return False
        around = ((root, folder) for folder in reversed(with_folders(path)))
        return next((self.rules[key] for key in around if key in self.rules), False)

    def with_change(self, root: int, path: str, *, removed: bool) -> "Removals":
        """Returns these rules, changed so that ``path`` and all below it are removed, or shown."""
        kept = {key: rule for key, rule in self.rules.items() if key[0] != root or path not in with_folders(key[1])}
        others = Removals(kept)
        return others if others.hides(root, path) == removed else Removals({**kept, (root, path): removed})

    def renumber(self, numbers: Sequence[int | None]) -> "Removals":
        """Returns the rules with new root numbers: ``numbers[old]`` is the new number, None for a dropped root."""
        moved = [(numbers[root], path, removed) for (root, path), removed in self.rules.items()]
        return Removals({(number, path): removed for number, path, removed in moved if number is not None})


@dataclass(frozen=True)
class PhotoFilter:
    """A file must lie below one of ``folders``, as results show them, if any, and pass the days, both included:

    those on which it was taken, or if it does not say, last changed in local time. Below a folder that ends with /., or
    is . alone, are only files in no subfolder of it.
    """

    folders: tuple[str, ...] = ()
    after: date | None = None
    before: date | None = None

    def folder_keys(self, names: Sequence[str]) -> list[FileKey] | None:
        """Returns the keys of the folders within the roots with these names; None for all files."""
        if not self.folders:
            return None
        # SQLite accepts a condition of up to a thousand parts.
        most = max(1, 500 // len(self.folders))
        forms = (form for name in self.folders for form in islice(spellings(name), most))
        keys = (key_shown(names, folder) for folder in dict.fromkeys(forms))
        return [key for key in keys if key is not None]


def below(path: str) -> tuple[str, str]:
    """Returns the bounds of the paths below a folder: '0' is the character after '/'."""
    return f"{path}/", f"{path}0"


def _begin(day: date) -> int:
    """Returns the time at which a day begins here, in ns since 1970; the bounds of all times for one far away."""
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        return MIN_TIME if day.year < _FIRST_YEAR else MAX_TIME
    return int(datetime.combine(day, time.min).timestamp()) * _NS


# Searches filter by day and by folder, and look up the files of photos; builds compare paths with a listing. Every
# change raises FORMAT_VERSION.
_SCHEMA = """
CREATE TABLE photos (
    id INTEGER PRIMARY KEY,
    root INTEGER NOT NULL,
    path TEXT NOT NULL,
    hash TEXT,
    size INTEGER,
    mtime INTEGER,
    ctime INTEGER,
    taken INTEGER,
    status TEXT NOT NULL CHECK (status IN ('indexed', 'bad', 'gone')),
    reason TEXT,
    cluster INTEGER,
    segment TEXT,
    row INTEGER
);
CREATE TABLE removals (root INTEGER NOT NULL, path TEXT NOT NULL, removed INTEGER NOT NULL, PRIMARY KEY (root, path));
"""
_INDEXES = """
CREATE UNIQUE INDEX photos_by_path ON photos (root, path);
CREATE INDEX photos_by_row ON photos (segment, row);
CREATE INDEX photos_by_day ON photos (taken, mtime);
"""


def write_catalog(path: Path, entries: Iterable[tuple[Any, ...]], removals: Removals) -> None:
    """Writes a catalog of these entries, which are as ``Catalog.entries`` yields them."""
    # Nobody else knows the file yet, and some network drives refuse locks.
    with closing(sqlite3.connect(f"{path.as_uri()}?nolock=1", uri=True)) as database:
        # The file is not read until complete, so one sync at the end is enough.
        database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;{_SCHEMA}")
        database.executemany(f"INSERT INTO photos VALUES ({', '.join('?' * 13)})", entries)
        rules = [(root, path, removed) for (root, path), removed in sorted(removals.rules.items())]
        database.executemany("INSERT INTO removals VALUES (?, ?, ?)", rules)
        for statement in _INDEXES.strip().splitlines():
            database.execute(statement)
        database.commit()
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def content_columns(file: GalleryFile) -> tuple[float | str | None, ...]:
    """Returns the columns of a file's content: root, path, hash, size, mtime, ctime, taken, reason."""
    stamp = (None, None, None) if file.stamp is None else (file.stamp.size, file.stamp.mtime, file.stamp.ctime)
    return (file.root, file.path, file.content_hash, *stamp, file.taken, file.reason)


def _passing(photo_filter: PhotoFilter, names: Sequence[str]) -> tuple[str, list[int | str]]:
    conditions, values = ["status = 'indexed'"], list[int | str]()
    if (folders := photo_filter.folder_keys(names)) is not None:
        parts = []
        for root, path in folders:
            around, _, name = path.rpartition("/")
            folder = around if name == "." else path
            parts.append("root = ? AND path >= ? AND path < ?" if folder else "root = ?")
            values += [root, *below(folder)] if folder else [root]
            if name == ".":
                parts[-1] += " AND instr(substr(path, ?), '/') = 0"
                values.append(len(folder) + 2 if folder else 1)
        conditions.append(f"({' OR '.join(parts) or '0'})")
    if photo_filter.after or photo_filter.before:
        # SQLite finds both by the index on the two. Days that are half known count as the first that they may be.
        conditions.append(f"(taken >= ? AND taken < ? OR taken IS NULL AND mtime >= ? AND mtime < ? AND {_CHANGED})")
        first, last = photo_filter.after or date.min, photo_filter.before or date.max
        after_last = _begin(last + timedelta(days=1)) if last < date.max else MAX_TIME
        values += [first.toordinal(), last.toordinal() + 1, _begin(first), after_last]
    return " AND ".join(conditions), values


class Catalog(AbstractContextManager["Catalog"]):
    """A catalog opened for reading. Raises IndexRefused; every method may raise IndexDamaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.open("rb").close()
        except OSError as error:
            raise unreadable(path, error) from error
        # A server's threads share the connection, and take turns; of a build, one thread reads it.
        self._lock = threading.Lock()
        self._database = self._connect()
        # Long queries have others, of which one is open before the file can be deleted.
        self._others, self._closed = [self._connect()], False

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for database in (self._database, *self._others):
                database.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def entries(self) -> Iterator[tuple[Any, ...]]:
        return self._rows("SELECT * FROM photos ORDER BY id")

    def count(self, root: int, path: str = "") -> tuple[int, int]:
        """Counts the files that are not gone, and the indexed ones of them: the one at a path, or those below it."""
        if not is_unicode(path):
            return 0, 0
        query = (
            "SELECT count(*), count(iif(status = 'indexed', 1, NULL)) FROM photos WHERE root = ? AND status <> 'gone'"
        )
        values: list[int | str] = [root]
        if path:
            query += " AND (path = ? OR path >= ? AND path < ?)"
            values += [path, *below(path)]
        ((files, indexed),) = self._all(query, *values)
        return files, indexed

    def bad(self) -> list[GalleryFile]:
        return self._files("WHERE status = 'bad' ORDER BY id")

    def removals(self) -> Removals:
        rules = self._all("SELECT root, path, removed FROM removals")
        return Removals({(root, path): bool(removed) for root, path, removed in rules})

    def sharing(self, photos: Sequence[int]) -> list[GalleryFile]:
        """Finds the indexed files with the content of one of these indexed files, themselves included, by id."""
        return self._files(
            """WHERE status = 'indexed' AND (segment, row) IN
               (SELECT segment, row FROM photos
                WHERE id IN (SELECT value FROM json_each(?)) AND status = 'indexed') ORDER BY id""",
            json.dumps(photos),
        )

    def at(self, root: int, path: str) -> int | None:
        if not is_unicode(path):
            return None
        query = "SELECT id FROM photos WHERE root = ? AND path = ? AND status = 'indexed'"
        return next((int(number) for (number,) in self._all(query, root, path)), None)

    def segment_rows_of(self, photo_filter: PhotoFilter, names: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yields segment and row of each indexed file that passes; files with equal content share a row."""
        condition, values = _passing(photo_filter, names)
        return self._giving_way(f"SELECT segment, row FROM photos WHERE {condition}", *values)

    def newest(self, photo_filter: PhotoFilter, names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """Yields segment, row and day, the file's or that of its last change, of the photos that pass, newest first."""
        condition, values = _passing(photo_filter, names)
        query = (
            f"SELECT segment, row, CAST(max({_DATED}) AS INTEGER) FROM photos WHERE {condition} GROUP BY segment, row "
            f"ORDER BY max({_DATED}) DESC, max(mtime) DESC, min(id)"
        )
        return self._giving_way(query, *values)

    def without_photos(self, folders: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
        """Returns those of these folders, as results show them, below which no indexed file is."""

        def is_empty(folder: str) -> bool:
            condition, values = _passing(PhotoFilter((folder,)), names)
            return not any(self._giving_way(f"SELECT 1 FROM photos WHERE {condition} LIMIT 1", *values))

        return tuple(filter(is_empty, folders))

    def folders(self) -> Iterator[tuple[int, str, int]]:
        """Yields root, path and number of the indexed files that are in each folder itself; "" for a root."""
        # Everything but slashes is cut off the end of the path.
        folder = "rtrim(rtrim(path, replace(path, '/', '')), '/')"
        return self._rows(f"SELECT root, {folder}, count(*) FROM photos WHERE status = 'indexed' GROUP BY 1, 2")

    def days(self, most: int, photo_filter: PhotoFilter, names: Sequence[str]) -> Iterator[tuple[int, int, int]]:
        """Yields the last ``most`` days with files that pass, newest first: the ordinal, files, undated files."""
        condition, values = _passing(photo_filter, names)
        dated = f"{condition} AND (taken IS NOT NULL OR {_CHANGED}) AND {_DATED} BETWEEN 1 AND ?"
        counts = "count(*), sum(taken IS NULL)"
        days = f"SELECT CAST({_DATED} AS INTEGER), {counts} FROM photos"
        query = f"{days} WHERE {dated} GROUP BY 1 ORDER BY 1 DESC LIMIT ?"
        return self._rows(query, *values, date.max.toordinal(), most)

    def _files(self, condition: str, *values: int | str) -> list[GalleryFile]:
        files = []
        for columns in self._all(f"SELECT * FROM photos {condition}", *values):
            number, root, path, content, size, mtime, ctime, taken, _, reason, cluster, *_ = columns
            stamp = None if size is None else FileStamp(size, mtime, ctime)
            files.append(GalleryFile(root, path, stamp, content, reason, taken, number, cluster))
        return files

    def _all(self, query: str, *values: int | str) -> list[tuple[Any, ...]]:
        with self._lock:
            return [*self._rows(query, *values)]

    def _giving_way(self, query: str, *values: int | str) -> Iterator[tuple[Any, ...]]:
        """Runs a query that may read all files, which pauses between its steps."""
        stopped = list[BaseException]()

        def step() -> bool:
            try:
                pause()
            except BaseException as error:
                stopped.append(error)
            return bool(stopped)

        # Another query must not wait for one that has given way to it.
        database = self._others.pop() if self._others else self._connect()
        database.set_progress_handler(step, _STEPS)
        try:
            yield from self._rows(query, *values, database=database)
        except IndexDamaged:
            if stopped:
                raise stopped[0] from None
            raise
        finally:
            database.set_progress_handler(None, 0)
            with self._lock:
                if self._closed:
                    database.close()
                else:
                    self._others.append(database)

    def _rows(
        self, query: str, *values: int | str, database: sqlite3.Connection | None = None
    ) -> Iterator[tuple[Any, ...]]:
        try:
            yield from (database or self._database).execute(query, values)
        except sqlite3.ProgrammingError:  # an error of the caller, such as reading after close
            raise
        except sqlite3.Error as error:
            raise IndexDamaged(f"{self._path} is damaged ({error}); {REPAIR}.") from error

"""The database of a build: a SQLite file in which each file of the gallery is a row, whatever their number.

It holds the files of the index, of a listing and those read; then those of the next generation. The files read, and the
numbers of their rows, stay in it when a build is stopped.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketch_search.indexer.building.folder_listing import FolderListing
from sketch_search.indexer.errors import REPAIR, IndexDamaged
from sketch_search.indexer.store.catalog import Catalog, GalleryFile, below, content_columns
from sketch_search.indexer.store.files import FileStamp
from sketch_search.indexer.store.generation import Generation
from sketch_search.indexer.store.location import FileKey, refuse_if_unwritable, shown_path, with_folders
from sketch_search.indexer.store.rows import GrowingRows, PhotoArrays, SegmentRows
from sketch_search.model.answers import UnreadFile
from sketch_search.model.engine import Numbers

DATABASE_FILE = "build.sqlite"
# Even a sort uses no more memory than this, in KiB.
_CACHE = 32 << 10
# If more than this share of photos is missing, and at least this number, all stay: the wrong disk may be mounted.
_MISSING_SHARE, _LEAST_MISSING = 1 / 10, 5
# Files that are listed, or fetched, at a time.
_AT_ONCE = 4096
# Added to the ids of files that are not shown, so that the least id of a content is one that is shown.
_GONE = 1 << 62
_ROW = np.dtype([("id", np.int64), *((name, np.int32) for name in ("source", "row", "cluster", "parts"))])

# files: those of the index as it is, and after ``settle`` as it will be, in the columns of a catalog. Roots that leave
# have negative numbers.
# seen: the files that were read, also by a stopped build, and those that are there, which have the number in which they
# were listed. state: 'unread' for one that has to be read, 'known' for one that is as in files, 'read' for one of which
# the other columns say what came of reading it.
# contents: the row of each content, and how many rows of its parts follow; before and id: the lowest id of the files
# that show it, now and in the next generation; cluster: of the current generation. No content is in two segments or
# slices.
# own: the segment, or slice, that this build appends rows to.
# removed: the contents whose files the user removed, all of them.
# boxes: found in photos whose rows have none.
SCHEMA = f"""
CREATE TABLE files (
    id INTEGER PRIMARY KEY, root INTEGER NOT NULL, path TEXT NOT NULL, hash TEXT, size INTEGER, mtime INTEGER,
    ctime INTEGER, taken INTEGER CHECK (taken BETWEEN 1 AND {date.max.toordinal()}), status TEXT NOT NULL, reason TEXT,
    cluster INTEGER, segment TEXT, row INTEGER, shard INTEGER NOT NULL DEFAULT 0, UNIQUE (root, path)
);
CREATE TABLE seen (
    root INTEGER, path TEXT, hash TEXT, size INTEGER, mtime INTEGER, ctime INTEGER, taken INTEGER, reason TEXT,
    number INTEGER, state TEXT NOT NULL CHECK (state IN ('unread', 'known', 'read')), PRIMARY KEY (root, path)
) WITHOUT ROWID;
CREATE INDEX seen_by_number ON seen (number);
CREATE VIEW listed AS SELECT * FROM seen WHERE number IS NOT NULL;
CREATE TABLE contents (
    hash TEXT PRIMARY KEY, segment TEXT NOT NULL, row INTEGER NOT NULL, taken INTEGER, cluster INTEGER,
    before INTEGER, id INTEGER, parts INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE own (segment TEXT NOT NULL);
CREATE TABLE removed (hash TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE boxes (hash TEXT PRIMARY KEY, boxes BLOB NOT NULL) WITHOUT ROWID;
"""

# The contents of the files that are there. In a CASE, SQLite lists them only if a file is missing; of AND, it computes
# both sides.
_THERE = """(SELECT f.hash FROM files f JOIN listed l USING (root, path) WHERE l.state = 'known' AND f.hash IS NOT NULL
    UNION SELECT hash FROM listed WHERE state = 'read' AND hash IS NOT NULL)"""
# The files that the index has, and that could not be read now.
_SPOILED = """FROM listed l CROSS JOIN files f USING (root, path)
    WHERE l.state = 'read' AND l.reason IS NOT NULL AND f.status = 'indexed' AND f.segment IS NOT NULL"""

# The photos of which no file is there any more, or can still be read.
_COUNT_MISSING = f"""SELECT count(DISTINCT f.hash) FROM files f LEFT JOIN listed l USING (root, path)
    WHERE f.status = 'indexed' AND CASE WHEN l.number IS NULL AND may_hide(f.root, f.path, 0) THEN 0
        WHEN l.number IS NULL OR (l.state = 'read' AND l.reason IS NOT NULL AND f.segment IS NOT NULL)
        THEN f.hash NOT IN {_THERE} ELSE 0 END"""
# Files that are not there are gone, unless their folder could not be listed. One that is there and was not read stays
# as it was, if it can be used.
_MARK_GONE = f"""UPDATE files SET status = 'gone', reason = NULL WHERE id IN (
    SELECT f.id FROM files f LEFT JOIN listed l USING (root, path)
    WHERE f.status <> 'gone' AND CASE WHEN f.status = 'bad' OR f.segment IS NOT NULL
        THEN iif(l.number IS NULL, NOT may_hide(f.root, f.path, coalesce(f.hash IN {_THERE}, 0)), 0)
        ELSE l.number IS NULL OR l.state = 'unread' END)"""
_MARK_BACK = """UPDATE files SET status = 'indexed' WHERE status = 'gone' AND EXISTS (SELECT 1 FROM listed l
    WHERE l.root = files.root AND l.path = files.path AND (l.state = 'known' OR l.hash = files.hash))"""
# The files that are new, or have a new content, of which all other files were removed.
_REMOVED_BEFORE = """SELECT l.root, l.path FROM listed l LEFT JOIN files f USING (root, path)
    WHERE l.state = 'read' AND l.reason IS NULL AND f.hash IS NOT l.hash AND l.hash IN (SELECT hash FROM removed)
    AND l.hash NOT IN (SELECT hash FROM files WHERE status = 'indexed' AND hash IS NOT NULL)"""
# Adds the files that were read, and changes those that differ.
_TAKE_READ = """INSERT INTO files (id, root, path, hash, size, mtime, ctime, taken, status, reason)
    SELECT coalesce(f.id, ? + row_number() OVER (PARTITION BY f.id IS NULL ORDER BY l.number) - 1),
        l.root, l.path, l.hash, l.size, l.mtime, l.ctime, l.taken, iif(l.reason IS NULL, 'indexed', 'bad'), l.reason
    FROM listed l LEFT JOIN files f USING (root, path) WHERE l.state = 'read'
    ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, size = excluded.size, mtime = excluded.mtime,
        ctime = excluded.ctime, taken = excluded.taken, status = excluded.status,
        reason = excluded.reason, cluster = NULL, segment = NULL, row = NULL
    WHERE (hash, size, mtime, ctime, taken, status, reason) IS NOT (excluded.hash, excluded.size,
        excluded.mtime, excluded.ctime, excluded.taken, excluded.status, excluded.reason)"""
_FILES_GONE = "SELECT id FROM files WHERE status = 'gone'"
# Those whose photo has another file.
_FILES_MOVED = f"{_FILES_GONE} AND hash IN (SELECT hash FROM files WHERE status = 'indexed')"
# What came of reading a file that is to be read, or was not listed yet.
_NOTE_READ = """ON CONFLICT (root, path) DO UPDATE SET hash = excluded.hash, size = excluded.size,
    mtime = excluded.mtime, ctime = excluded.ctime, taken = excluded.taken, reason = excluded.reason, state = 'read'
    WHERE number IS NULL OR state = 'unread'"""


@dataclass(frozen=True)
class ShownPhotos:
    """The p photos that are shown, by id: their rows, each followed by those of so many ``parts``, and their clusters
    in the current generation; -1 for new ones."""

    ids: Numbers
    rows: SegmentRows
    clusters: npt.NDArray[np.int32]
    parts: Numbers

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Settled:
    """How the next generation differs from the current one, by numbers of files and photos.

    changed: files that differ. gone: files that left, and their photo with them; moved: whose photo has another file.
    missing: photos that stay although their files are gone or unreadable, because they are too many; spoiled:
    unreadable files. waiting: files that were to be read, and were not. removed_before: new files of photos that the
    user removed, which are not shown either.
    """

    changed: int
    gone: int
    moved: int
    missing: int
    spoiled: int
    waiting: int
    removed_before: tuple[FileKey, ...]


class BuildDatabase:
    """The database of a build, for one thread; others may ask it what it ``knows`` meanwhile. Raises IndexUnwritable.

    segment: the folder whose arrays the build appends rows to. staged: how many rows that has.
    """

    def __init__(
        self, path: Path, segment: Path | None = None, used: Collection[str] = (), *, shard: int | None = None
    ) -> None:
        """Goes on with what a stopped build has left in ``path`` and its segment, or begins both.

        segment: the folder that a new database appends rows to; None for the one that it lies in. used: segments that
        belong to generations, and that nothing may be appended to. With ``shard``, a complete database is only read, by
        any number of processes: the files of this shard, in which all are before they are dealt out if it is 0.
        """
        self._path, self.segment, self._shard = path, segment or path.parent, shard or 0
        self._lock = threading.RLock()
        with refuse_if_unwritable(path):
            if shard is not None:
                self._database = _connect(path, "mode=ro&immutable=1")
            else:
                path.parent.mkdir(exist_ok=True)
                self._database = _connect(path)
                try:
                    self._go_on(used)
                except BaseException:
                    self.close()
                    raise
        self.staged, self._rows = self._count_staged(), GrowingRows(self.segment, path.parent)

    def _go_on(self, used: Collection[str]) -> None:
        """Keeps what a stopped build has read, if it is sound, and forgets all else."""
        segment = self._segment_left()
        if segment is not None and segment.name not in used:
            self.segment = segment
            self._database.executescript(
                """BEGIN;
                DELETE FROM files; DELETE FROM removed; DELETE FROM seen WHERE state <> 'read';
                UPDATE seen SET number = NULL;
                DELETE FROM contents WHERE segment NOT IN (SELECT segment FROM own);
                UPDATE contents SET cluster = NULL, before = NULL, id = NULL;
                COMMIT;"""
            )
        else:
            self._database.close()
            self._path.unlink(missing_ok=True)
            self._database = _connect(self._path)
            self._database.executescript(SCHEMA)
            self.segment.mkdir(exist_ok=True)
            with self._writing() as database:
                database.execute("INSERT INTO own VALUES (?)", (self.segment.name,))
        self._database.executescript(f"PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -{_CACHE};")

    def _segment_left(self) -> Path | None:
        """Returns the segment of a stopped build; None if there is none, or if the database or the rows are damaged."""
        with suppress(sqlite3.DatabaseError, IndexDamaged):
            if self._all("PRAGMA quick_check(1)") != [("ok",)]:
                return None
            for (name,) in self._all("SELECT segment FROM own"):
                segment = self.segment.with_name(name)
                GrowingRows(segment, self._path.parent).open(self._count_staged())
                return segment
        return None

    def _count_staged(self) -> int:
        return self._number("SELECT coalesce(max(row + parts) + 1, 0) FROM contents JOIN own USING (segment)")

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, refuse_if_unwritable(self._path), self._database:
            yield self._database

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def _number(self, query: str, *values: object) -> int:
        ((number,),) = self._all(query, *values)
        return int(number)

    def stage(
        self, records: Sequence[GalleryFile], new: Mapping[str, tuple[float | None, int]], rows: PhotoArrays | None
    ) -> None:
        """Commits a batch: its records, and the rows of new contents, overwritten by the next after a kill.

        new: the number of the day of each content, if it is known; and how many parts it has.
        """
        if rows is not None:
            with refuse_if_unwritable(self.segment):
                self._rows.append(rows, self.staged)
        row, values = self.staged, list[tuple[str, int, float | None, int]]()
        for content, (taken, parts) in new.items():
            values.append((content, row, taken, parts))
            row += 1 + parts
        with self._writing() as database:
            insert = "INSERT INTO contents (hash, segment, row, taken, parts)"
            database.executemany(f"{insert} VALUES (?, (SELECT segment FROM own), ?, ?, ?)", values)
            read = f"INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, 'read') {_NOTE_READ}"
            database.executemany(read, map(content_columns, records))
        self.staged = row

    def staged_rows(self) -> PhotoArrays:
        return self._rows.open(self.staged)

    def files_of(self, rows: Mapping[str, npt.NDArray[np.bool_]]) -> Iterator[tuple[str, list[FileKey]]]:
        """Yields the contents, with the files that are there, of these rows of segments that have no ``note_boxes``."""
        query = """SELECT c.hash, c.segment, c.row, json_group_array(json_array(f.root, f.path)) FROM contents c
            JOIN files f ON f.hash = c.hash JOIN listed l ON (l.root, l.path) = (f.root, f.path)
            WHERE f.status = 'indexed' AND c.hash NOT IN (SELECT hash FROM boxes) GROUP BY c.hash"""
        for content, segment, row, files in self._all(query) if rows else ():
            if segment in rows and rows[segment][row]:
                yield content, [(root, path) for root, path in json.loads(files)]

    def note_boxes(self, boxes_by_content: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        with self._writing() as database:
            values = [(content, boxes.tobytes()) for content, boxes in boxes_by_content.items()]
            database.executemany("INSERT OR REPLACE INTO boxes VALUES (?, ?)", values)

    def boxes_of(self, segment: str) -> list[tuple[int, int, bytes]]:
        """Returns the boxes that were noted of a segment's photos: the row, how many parts follow, and theirs, too."""
        return self._all("SELECT row, parts, boxes FROM boxes JOIN contents USING (hash) WHERE segment = ?", segment)

    def counts_read(self) -> tuple[int, int]:
        ((files, bad),) = self._all("SELECT count(*), count(reason) FROM seen")
        return files, bad

    def take_over(
        self,
        catalogs: Mapping[str, Generation],
        numbers: Sequence[int | None],
        unusable: Collection[str] = (),
        was_removed: Callable[[int, str], bool] | None = None,
    ) -> None:
        """Copies the files of the index, and the rows of their contents. Raises IndexRefused for a damaged one.

        catalogs: by how the names of their segments begin here. numbers: the new ones of their roots, None for one that
        leaves. unusable: segments whose rows are not used. was_removed: whether the user removed a file.
        """
        index = self._path.parent.parent

        def moved(catalog: Catalog, names: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
            for number, root, *others, cluster, segment, row in catalog.entries():
                now, name = numbers[root], names.get(segment)
                stored = (None, None, None) if name is None else (cluster, name, row)
                yield number, -1 - root if now is None else now, *others, *stored

        self._database.execute(
            "CREATE TEMP TABLE with_parts (segment TEXT, row INTEGER, parts INTEGER, PRIMARY KEY (segment, row))"
        )
        for beginning, generation in catalogs.items():
            segments = generation.manifest.segment_sizes
            names = {name: f"{beginning}{name}" for name in segments if name not in unusable}
            with generation.open_catalog() as catalog, self._writing() as database:
                try:
                    database.executemany(f"INSERT INTO files VALUES ({'?, ' * 13}0)", moved(catalog, names))
                    if names and generation.manifest.counts.parts:
                        of_rows = generation.open_photo_table().parts_by_row([*segments])
                        parts = ((names[name], row, count) for name, row, count in of_rows if name in names)
                        database.executemany("INSERT INTO with_parts VALUES (?, ?, ?)", parts)
                except (sqlite3.IntegrityError, IndexError) as error:
                    raise IndexDamaged(f"the catalog of {index} is damaged ({error}); {REPAIR}.") from error
        with self._writing() as database:
            first = f"min(id + (status <> 'indexed') * {_GONE})"
            database.execute(
                f"""INSERT OR REPLACE INTO contents (hash, segment, row, taken, cluster, before, parts)
                    SELECT hash, segment, row, taken, cluster, iif(first < {_GONE}, first, NULL), coalesce((SELECT parts
                    FROM with_parts p WHERE p.segment = found.segment AND p.row = found.row), 0) FROM (
                    SELECT hash, segment, row, taken, cluster, {first} AS first FROM files
                    WHERE hash IS NOT NULL AND segment IS NOT NULL GROUP BY hash) found"""
            )
            if was_removed is not None:
                database.create_function("was_removed", 2, was_removed)
                database.execute(
                    """INSERT INTO removed SELECT hash FROM files WHERE hash IS NOT NULL
                       GROUP BY hash HAVING max(was_removed(root, path)) AND NOT max(status = 'indexed')"""
                )
            database.execute("DELETE FROM files WHERE root < 0")

    def take_slice(self, folder: Path) -> None:
        """Copies the records of the files that a worker has read, and their rows' numbers, from a slice."""
        path = folder / DATABASE_FILE
        with refuse_if_unwritable(self._path), self._lock:
            self._database.execute("ATTACH ? AS slice", (f"{path.as_uri()}?mode=ro&immutable=1",))
        with self._writing() as database:
            database.execute(f"INSERT INTO seen SELECT * FROM slice.seen WHERE true {_NOTE_READ}")
            database.execute(
                """INSERT OR IGNORE INTO contents (hash, segment, row, taken, parts)
                   SELECT hash, ?, row, taken, parts FROM slice.contents""",
                (folder.name,),
            )
        self._database.execute("DETACH slice")

    def has_below(self, folder: FileKey) -> bool:
        root, path = folder
        bounds, condition = (below(path), "AND path >= ? AND path < ?") if path else ((), "")
        query = f"SELECT 1 FROM files WHERE root = ? AND status <> 'gone' {condition} LIMIT 1"
        return bool(self._all(query, root, *bounds))

    def present_files(self) -> Iterator[FileKey]:
        yield from self._database.execute("SELECT root, path FROM files WHERE status <> 'gone'")

    def absent_files(self) -> Iterator[FileKey]:
        query = "SELECT f.root, f.path FROM files f LEFT JOIN listed l USING (root, path) WHERE f.status <> 'gone'"
        yield from self._database.execute(f"{query} AND l.number IS NULL")

    def take_listed(self, files: Iterable[GalleryFile], *, reusable: bool, checksum: bool) -> int:
        """Records the files of a listing, also which are to be read. Returns the number of the last one before.

        A file need not be read if its size and times are those that the index has, which counts if it is ``reusable``,
        or those of a file that was read before. With ``checksum``, all are read.
        """
        left, last = iter(files), self._number("SELECT coalesce(max(number), 0) FROM seen")
        before = last
        while part := [*islice(left, _AT_ONCE)]:
            rows = [(*content_columns(file), number) for number, file in enumerate(part, last + 1)]
            with self._writing() as database:
                # What was read before counts if it is of the same state of the file, and its content has a row.
                database.executemany(
                    """DELETE FROM seen WHERE root = ?1 AND path = ?2 AND (?8 IS NOT NULL OR ?10 OR size IS NULL
                       OR (size, mtime, ctime) IS NOT (?4, ?5, ?6)
                       OR (reason IS NULL AND NOT EXISTS (SELECT 1 FROM contents WHERE hash = seen.hash)))""",
                    [(*row, checksum) for row in rows],
                )
                database.executemany(
                    """INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?8, ?9, iif(?8 IS NULL, 'unread', 'read'))
                       ON CONFLICT (root, path) DO UPDATE SET number = excluded.number""",
                    rows,
                )
                if reusable and not checksum:
                    database.execute(
                        """UPDATE seen SET state = 'known' WHERE number > ? AND size IS NOT NULL AND EXISTS (
                           SELECT 1 FROM files f WHERE f.root = seen.root AND f.path = seen.path
                           AND (f.size, f.mtime, f.ctime) IS (seen.size, seen.mtime, seen.ctime)
                           AND (f.reason IS NOT NULL OR f.segment IS NOT NULL))""",
                        (last,),
                    )
            last += len(part)
        return before

    def photo_beside(self, photo: FileKey, raw: FileKey) -> tuple[bool, bool, float | None]:
        """Returns if a listed photo is bad, if it and the RAW file beside it are known, and its day if it was read."""
        query = """SELECT l.state = 'known', coalesce(l.reason, iif(l.state = 'known', f.reason, NULL)) IS NOT NULL,
            l.taken, EXISTS (SELECT 1 FROM files WHERE (root, path) = (?, ?) AND status = 'indexed')
            FROM listed l LEFT JOIN files f USING (root, path) WHERE (l.root, l.path) = (?, ?)"""
        for known, bad, taken, has_raw in self._all(query, *raw, *photo):
            return bool(bad), bool(known and has_raw), None if known else taken
        return False, False, None

    def count_unread(self, last: int = 0) -> int:
        return self._number("SELECT count(*) FROM seen WHERE state = 'unread' AND number > ?", last)

    def unread(self, last: int) -> Iterator[GalleryFile]:
        """Yields the files to read, after the first ``last`` listed ones."""
        query = """SELECT number, root, path, size, mtime, ctime FROM seen WHERE state = 'unread' AND number > ?
                   ORDER BY number LIMIT ?"""
        while rows := self._all(query, last, _AT_ONCE):
            for _, root, path, *stamp in rows:
                yield GalleryFile(root, path, None if stamp[0] is None else FileStamp(*stamp))
            last = rows[-1][0]

    def count_settled(self) -> tuple[int, int]:
        """Counts the listed files that need not be read, and the bad ones of them."""
        query = """SELECT count(*), count(iif(l.state = 'known', f.reason, l.reason)) FROM listed l
            LEFT JOIN files f USING (root, path) WHERE l.state <> 'unread'"""
        ((settled, bad),) = self._all(query)
        return settled, bad

    def knows(self, content: str) -> bool:
        return bool(self._number("SELECT count(*) FROM contents WHERE hash = ?", content))

    def day_of(self, content: str) -> float | None:
        """Returns the number of a known photo's day; None if that is unknown."""
        ((taken,),) = self._all("SELECT taken FROM contents WHERE hash = ?", content)
        return None if taken is None else float(taken)

    def settle(
        self, listing: FolderListing, next_id: int, shown_again: Collection[FileKey], *, allow_loss: bool
    ) -> Settled:
        """Turns the files into those of the next generation. Files keep ids; new ones get theirs as they were listed.

        The entries of a folder that could not be listed, and of a file that waits for the next build or could not be
        read, stay as they were. So do all that are not there while others wait, which may be the same under new names;
        and, without ``allow_loss``, if they are too many. Files that are gone stay, too: a file that comes back gets
        its id again, and also its row if that still exists. Files below ``shown_again`` are shown if they are new
        copies of removed photos, too.
        """
        waiting = self.count_unread()
        # Photos of the index that are there and could not be read stay as they were.
        unread = self._all(f"SELECT l.root, l.path, l.reason {_SPOILED} AND l.hash IS NULL AND l.size IS NULL")
        for file in unread:
            listing.note_unread(*file)
        self._forget_read([(root, path) for root, path, _ in unread])
        all_stay = waiting > 0

        def may_hide(root: int, path: str, moved: int) -> bool:
            # Counting asks before it is known whether all stay, and marking afterwards.
            return all_stay or listing.may_hide((root, path), moved=bool(moved))

        self._database.create_function("may_hide", 3, may_hide)
        missing = 0 if allow_loss or all_stay else self._number(_COUNT_MISSING)
        shown = "SELECT count(DISTINCT hash) FROM files WHERE status = 'indexed'"
        all_stay = all_stay or (missing >= _LEAST_MISSING and missing > _MISSING_SHARE * self._number(shown))
        spoiled: list[FileKey] = []
        if missing and all_stay:
            spoiled = self._all(f"SELECT l.root, l.path {_SPOILED}")
            self._forget_read(spoiled)
        with self._writing() as database:
            gone_before = set(self._all(_FILES_GONE))
            gone = database.execute(_MARK_GONE).rowcount
            changed = gone + database.execute(_MARK_BACK).rowcount
            removed_before = [
                (root, path)
                for root, path in self._all(_REMOVED_BEFORE)
                if not any((root, folder) in shown_again for folder in with_folders(path))
            ]
            changed += database.execute(_TAKE_READ, (next_id,)).rowcount
            query = "UPDATE files SET status = 'gone' WHERE root = ? AND path = ?"
            database.executemany(query, removed_before)
            moved = len(set(self._all(_FILES_MOVED)) - gone_before)
        listing.forget_empty(self.has_below)
        return Settled(
            changed, gone - moved, moved, missing if all_stay else 0, len(spoiled), waiting, tuple(removed_before)
        )

    def _forget_read(self, files: Sequence[FileKey]) -> None:
        with self._writing() as database:
            query = "UPDATE seen SET state = 'unread', hash = NULL, reason = NULL WHERE root = ? AND path = ?"
            database.executemany(query, files)

    def hide(self, hides: Callable[[int, str], bool]) -> int:
        """Marks files that the user removed or excluded as gone. Returns how many."""
        self._database.create_function("hides", 2, hides)
        with self._writing() as database:
            query = "UPDATE files SET status = 'gone', reason = NULL WHERE status <> 'gone' AND hides(root, path)"
            return database.execute(query).rowcount

    def bad(self, names: Sequence[str]) -> tuple[UnreadFile, ...]:
        rows = self._all("SELECT root, path, reason FROM files WHERE reason IS NOT NULL")
        bad = (UnreadFile(shown_path(names, root, path), reason) for root, path, reason in rows)
        return tuple(sorted(bad, key=lambda file: file.path))

    def choose_photos(self) -> ShownPhotos:
        """Finds the photos that the next generation shows, one for files of equal content, as ``photos`` does."""
        with self._writing() as database:
            database.execute(
                """UPDATE contents SET id = f.id FROM (SELECT hash, min(id) AS id FROM files WHERE status = 'indexed'
                   GROUP BY hash) f WHERE f.hash = contents.hash"""
            )
        return self.photos()

    def photos(self) -> ShownPhotos:
        """Reads the rows of all photos. The first source is the segment that this build appends to."""
        others = "SELECT DISTINCT segment FROM contents WHERE segment NOT IN (SELECT segment FROM own) ORDER BY segment"
        names = tuple(name for (name,) in (*self._all("SELECT segment FROM own"), *self._all(others)))
        numbers = {name: number for number, name in enumerate(names)}
        query = """SELECT f.id, c.segment, c.row, coalesce(c.cluster, -1), c.parts
            FROM files f JOIN contents c ON c.hash = f.hash AND c.id = f.id WHERE f.shard = ? ORDER BY f.id"""
        shown = self._database.execute(query, (self._shard,))
        table = np.fromiter(((photo, numbers[name], *others) for photo, name, *others in shown), _ROW)
        rows = SegmentRows(names, table["source"], table["row"])
        return ShownPhotos(table["id"], rows, table["cluster"], table["parts"].astype(np.int64))

    def changed_clusters(self) -> set[int]:
        """Returns the clusters of the current generation that lost a photo, or got one back."""
        query = "SELECT DISTINCT cluster FROM contents WHERE cluster IS NOT NULL AND before IS NOT id"
        return {number for (number,) in self._all(query)}

    def counts(self) -> dict[str, int]:
        return dict(self._all("SELECT status, count(*) FROM files WHERE shard = ? GROUP BY status", self._shard))

    def last_id(self) -> int:
        return self._number("SELECT coalesce(max(id), 0) FROM files")

    def deal(self, ids: Numbers, clusters: npt.NDArray[np.integer[Any]], shard_of: Numbers) -> None:
        """Gives photos (p,) their clusters, and files the shard of their photo, or any. shard_of: (c,)."""
        places = zip(ids.tolist(), clusters.tolist(), shard_of[clusters].tolist(), strict=True)
        with self._writing() as database:
            database.execute("CREATE TEMP TABLE placed (id INTEGER PRIMARY KEY, cluster INTEGER, shard INTEGER)")
            database.executemany("INSERT INTO placed VALUES (?, ?, ?)", places)
            database.execute("UPDATE contents SET cluster = p.cluster FROM placed p WHERE p.id = contents.id")
            database.execute(
                """UPDATE files SET shard = coalesce((SELECT p.shard FROM contents c JOIN placed p ON p.id = c.id
                   WHERE files.status = 'indexed' AND c.hash = files.hash), id % ?)""",
                (int(shard_of.max()) + 1,),
            )
            database.execute("CREATE INDEX files_by_shard ON files (shard)")

    def catalog(self, photos: Iterable[tuple[int, int, str, int]], kept: Collection[str]) -> Iterator[tuple[Any, ...]]:
        """Yields the next catalog's entries. photos: id, cluster, segment, row. kept: segments of gone files."""
        self._database.execute(
            "CREATE TEMP TABLE photos (id INTEGER PRIMARY KEY, cluster INTEGER, segment TEXT, row INTEGER)"
        )
        with self._writing() as database:
            database.executemany("INSERT INTO photos VALUES (?, ?, ?, ?)", photos)
        return self._database.execute(
            """SELECT f.id, f.root, f.path, f.hash, f.size, f.mtime, f.ctime, f.taken, f.status, f.reason,
               coalesce(p.cluster, iif(k.name IS NULL, NULL, f.cluster)), coalesce(p.segment, k.name),
               coalesce(p.row, iif(k.name IS NULL, NULL, f.row))
               FROM files f LEFT JOIN contents c ON f.status = 'indexed' AND c.hash = f.hash
               LEFT JOIN photos p ON p.id = c.id
               LEFT JOIN (SELECT value AS name FROM json_each(?)) k ON f.status = 'gone' AND k.name = f.segment
               AND f.hash NOT IN (SELECT hash FROM contents WHERE parts > 0)
               WHERE f.shard = ? ORDER BY f.id""",
            (json.dumps([*kept]), self._shard),
        )


def _connect(path: Path, options: str = "nolock=1") -> sqlite3.Connection:
    # A build holds the lock of its index, and some network drives refuse those of SQLite.
    return sqlite3.connect(f"{path.as_uri()}?{options}", uri=True, check_same_thread=False)

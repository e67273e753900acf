"""The database of a build: a SQLite file in which each file of the gallery is a row, whatever their number.

It holds the files of the index, of a listing and those read; then those of the next generation. The files read, and the
numbers of their rows, stay in it when a build is stopped.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketch_search.indexer.building.folder_listing import BadFile, FolderListing
from sketch_search.indexer.errors import REPAIR, IndexDamaged
from sketch_search.indexer.store.catalog import Catalog, GalleryFile, below, content_columns
from sketch_search.indexer.store.files import FileStamp
from sketch_search.indexer.store.generation import Generation
from sketch_search.indexer.store.location import refuse_if_unwritable
from sketch_search.indexer.store.roots import FileKey, shown_path
from sketch_search.indexer.store.rows import GrowingRows, PhotoArrays, SegmentRows
from sketch_search.model.engine import Numbers

DATABASE_FILE = "build.sqlite"
# Even a sort uses no more memory than this, in KiB.
_CACHE = 32 << 10
# If more than one photo in this many is missing, and at least this number, all stay: the wrong disk may be mounted.
_TENTH, _FEW = 10, 5
# Files that are listed, or fetched, at a time.
_AT_ONCE = 4096
# Added to the ids of files that are not shown, so that the least id of a content is one that is shown.
_GONE = 1 << 62
# The number among the sources of the segment, or slice, that this build appends rows to.
_OWN = 1
_ROW = np.dtype([("source", np.int32), ("row", np.int32), ("cluster", np.int32)])

# files: those of the index as it is, and after ``settle`` as it will be. Roots that leave have negative numbers.
# listed: those that are there; state: 'unread' for one that has to be read, 'known' for one that is as in files, 'read'
# for one that is as in read. read: what came of files that were read.
# contents: the row of each content; before and id: the lowest id of the files that show it, now and in the next
# generation; cluster: of the current generation. No content is in two segments.
# sources: the segments and slices that have rows.
# removed: the contents whose files the user removed, all of them.
# boxes: found in photos whose rows have none.
SCHEMA = f"""
CREATE TABLE files (
    id INTEGER PRIMARY KEY, root INTEGER NOT NULL, path TEXT NOT NULL, hash TEXT, size INTEGER, mtime INTEGER,
    ctime INTEGER, taken INTEGER CHECK (taken BETWEEN 1 AND {date.max.toordinal()}), status TEXT NOT NULL, reason TEXT,
    cluster INTEGER, source INTEGER, row INTEGER, shard INTEGER NOT NULL DEFAULT 0, UNIQUE (root, path)
);
CREATE TABLE listed (
    number INTEGER PRIMARY KEY, root INTEGER NOT NULL, path TEXT NOT NULL, size INTEGER, mtime INTEGER, ctime INTEGER,
    state TEXT NOT NULL CHECK (state IN ('unread', 'known', 'read')), UNIQUE (root, path)
);
CREATE TABLE read (
    root INTEGER, path TEXT, hash TEXT, size INTEGER, mtime INTEGER, ctime INTEGER, taken INTEGER, reason TEXT,
    PRIMARY KEY (root, path)
) WITHOUT ROWID;
CREATE TABLE contents (
    hash TEXT PRIMARY KEY, source INTEGER NOT NULL, row INTEGER NOT NULL, taken INTEGER, cluster INTEGER,
    before INTEGER, id INTEGER
) WITHOUT ROWID;
CREATE TABLE sources (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE removed (hash TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE boxes (hash TEXT PRIMARY KEY, boxes BLOB NOT NULL) WITHOUT ROWID;
"""

# The contents of the files that are there. In a CASE, SQLite lists them only if a file is missing; of AND, it computes
# both sides.
_THERE = """(SELECT hash FROM files JOIN listed USING (root, path) WHERE state = 'known' AND hash IS NOT NULL
    UNION SELECT hash FROM read JOIN listed USING (root, path) WHERE state <> 'known' AND hash IS NOT NULL)"""
# The files that the index has, and that could not be read now.
_SPOILED = """FROM read r CROSS JOIN listed USING (root, path) JOIN files g USING (root, path)
    WHERE state <> 'known' AND r.reason IS NOT NULL AND g.status = 'indexed' AND g.source IS NOT NULL"""

# The photos of which no file is there any more, or can still be read.
_COUNT_MISSING = f"""SELECT count(DISTINCT f.hash) FROM files f LEFT JOIN listed l USING (root, path)
    WHERE f.status = 'indexed' AND CASE WHEN l.number IS NULL AND may_hide(f.root, f.path, 0) THEN 0
        WHEN l.number IS NULL OR EXISTS (SELECT 1 {_SPOILED} AND r.root = f.root AND r.path = f.path)
        THEN f.hash NOT IN {_THERE} ELSE 0 END"""
# Files that are not there are gone, unless their folder could not be listed. One that is there and was not read stays
# as it was, if it can be used.
_MARK_GONE = f"""UPDATE files SET status = 'gone', reason = NULL WHERE id IN (
    SELECT f.id FROM files f LEFT JOIN listed l USING (root, path) LEFT JOIN read r USING (root, path)
    WHERE f.status <> 'gone' AND CASE WHEN f.status = 'bad' OR f.source IS NOT NULL
        THEN iif(l.number IS NULL, NOT may_hide(f.root, f.path, coalesce(f.hash IN {_THERE}, 0)), 0)
        ELSE l.number IS NULL OR (l.state = 'unread' AND r.path IS NULL) END)"""
_MARK_BACK = """UPDATE files SET status = 'indexed' WHERE status = 'gone' AND EXISTS (
    SELECT 1 FROM listed l WHERE l.root = files.root AND l.path = files.path AND l.state = 'known')"""
# The files that are new, or have a new content, of which all other files were removed.
_REMOVED_BEFORE = """SELECT r.root, r.path FROM read r CROSS JOIN listed l USING (root, path)
    LEFT JOIN files f USING (root, path)
    WHERE l.state <> 'known' AND r.reason IS NULL AND f.hash IS NOT r.hash AND r.hash IN (SELECT hash FROM removed)
    AND r.hash NOT IN (SELECT hash FROM files WHERE status = 'indexed' AND hash IS NOT NULL)"""
# Adds the files that were read, and changes those that differ.
_TAKE_READ = """INSERT INTO files (id, root, path, hash, size, mtime, ctime, taken, status, reason)
    SELECT coalesce(f.id, ? + row_number() OVER (PARTITION BY f.id IS NULL ORDER BY l.number) - 1),
        r.root, r.path, r.hash, r.size, r.mtime, r.ctime, r.taken, iif(r.reason IS NULL, 'indexed', 'bad'), r.reason
    FROM read r CROSS JOIN listed l USING (root, path) LEFT JOIN files f USING (root, path)
    WHERE l.state <> 'known'
    ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, size = excluded.size, mtime = excluded.mtime,
        ctime = excluded.ctime, taken = excluded.taken, status = excluded.status,
        reason = excluded.reason, cluster = NULL, source = NULL, row = NULL
    WHERE (hash, size, mtime, ctime, taken, status, reason) IS NOT (excluded.hash, excluded.size,
        excluded.mtime, excluded.ctime, excluded.taken, excluded.status, excluded.reason)"""


@dataclass(frozen=True)
class Photos:
    """The rows of the p photos that are shown, by id, and their clusters in the current generation; -1 for new ones."""

    rows: SegmentRows
    clusters: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Settled:
    """How the next generation differs from the current one, by numbers of files and photos.

    changed: files that differ; gone: those of them that are gone. missing: photos that stay although their files are
    gone or unreadable, because they are too many; spoiled: unreadable files. waiting: files that were to be read, and
    were not. removed_before: new files of photos that the user removed, which are not shown either.
    """

    changed: int
    gone: int
    missing: int
    spoiled: int
    waiting: int
    removed_before: tuple[FileKey, ...]


# A build holds the lock of its index, and some network drives refuse those of SQLite.
_UNLOCKED = "?nolock=1"


class BuildDatabase:
    """The database of a build, for one thread; others may ask it for ``days`` meanwhile. Raises IndexUnwritable.

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
                self._database = _connect(f"{path.as_uri()}?mode=ro&immutable=1")
            else:
                path.parent.mkdir(exist_ok=True)
                self._database = _connect(f"{path.as_uri()}{_UNLOCKED}")
                try:
                    self._go_on(used)
                except BaseException:
                    self.close()
                    raise
        self.staged = self._count_staged()

    def _go_on(self, used: Collection[str]) -> None:
        """Keeps what a stopped build has read, if it is sound, and forgets all else."""
        segment = self._segment_left()
        if segment is not None and segment.name not in used:
            self.segment = segment
            self._database.executescript(
                f"""BEGIN;
                DELETE FROM files; DELETE FROM listed; DELETE FROM removed; DELETE FROM sources WHERE number <> {_OWN};
                DELETE FROM contents WHERE source <> {_OWN};
                UPDATE contents SET cluster = NULL, before = NULL, id = NULL;
                COMMIT;"""
            )
        else:
            self._database.close()
            self._path.unlink(missing_ok=True)
            self._database = _connect(f"{self._path.as_uri()}{_UNLOCKED}")
            self._database.executescript(SCHEMA)
            self.segment.mkdir(exist_ok=True)
            self._source(self.segment.name)
        self._database.executescript(f"PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -{_CACHE};")

    def _segment_left(self) -> Path | None:
        """Returns the segment of a stopped build; None if there is none, or if the database or the rows are damaged."""
        try:
            if self._all("PRAGMA quick_check(1)") != [("ok",)]:
                return None
            for (name,) in self._all("SELECT name FROM sources WHERE number = ?", _OWN):
                segment = self.segment.with_name(name)
                GrowingRows(segment, self._path.parent).open(self._count_staged())
                return segment
        except (sqlite3.DatabaseError, IndexDamaged):
            pass
        return None

    def _count_staged(self) -> int:
        return self._number("SELECT coalesce(max(row) + 1, 0) FROM contents WHERE source = ?", _OWN)

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

    def stage(self, records: Sequence[GalleryFile], days: Mapping[str, int | None], rows: PhotoArrays | None) -> None:
        """Commits a batch: its records, and new rows with hashes and days, overwritten by the next after a kill."""
        if rows is not None:
            with refuse_if_unwritable(self.segment):
                self._rows.append(rows, self.staged)
        with self._writing() as database:
            database.executemany(
                "INSERT INTO contents (hash, source, row, taken) VALUES (?, ?, ?, ?)",
                [(content, _OWN, row, day) for row, (content, day) in enumerate(days.items(), self.staged)],
            )
            self._note_read(map(content_columns, records))
        self.staged += len(days)

    def staged_rows(self) -> PhotoArrays:
        """Maps all rows that were staged into memory."""
        return self._rows.open(self.staged)

    def files_of(self, rows: Mapping[str, npt.NDArray[np.bool_]]) -> Iterator[tuple[str, list[FileKey]]]:
        """Yields the contents, with the files that are there, of these rows of sources that have no ``note_boxes``."""
        names = dict(self._all("SELECT number, name FROM sources"))
        query = """SELECT hash, c.source, c.row, json_group_array(json_array(root, path)) FROM contents c
            JOIN files f USING (hash) JOIN listed USING (root, path)
            WHERE status = 'indexed' AND hash NOT IN (SELECT hash FROM boxes) GROUP BY hash"""
        for content, source, row, files in self._all(query):
            if names[source] in rows and rows[names[source]][row]:
                yield content, [(root, path) for root, path in json.loads(files)]

    def note_boxes(self, found: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        with self._writing() as database:
            values = [(content, boxes.tobytes()) for content, boxes in found.items()]
            database.executemany("INSERT OR REPLACE INTO boxes VALUES (?, ?)", values)

    def boxes_of(self, source: str) -> list[tuple[int, bytes]]:
        """Returns the boxes that were noted of the rows of a source."""
        return self._all(
            """SELECT row, boxes FROM boxes JOIN contents USING (hash) JOIN sources ON number = source
               WHERE name = ?""",
            source,
        )

    def counts_read(self) -> tuple[int, int]:
        """Counts the files that were read, and the bad ones of them."""
        ((files, bad),) = self._all("SELECT count(*), count(reason) FROM read")
        return files, bad

    def _note_read(self, columns: Iterable[tuple[Any, ...]]) -> None:
        self._database.executemany("INSERT OR REPLACE INTO read VALUES (?, ?, ?, ?, ?, ?, ?, ?)", columns)

    @property
    def _rows(self) -> GrowingRows:
        return GrowingRows(self.segment, self._path.parent)

    def take_over(
        self, catalogs: Mapping[str, Generation], numbers: Sequence[int | None], unusable: Collection[str] = ()
    ) -> None:
        """Copies the files of the index, and the rows of their contents. Raises IndexRefused for a damaged one.

        catalogs: by how the names of their rows' sources begin. numbers: the new ones of their roots, None for one that
        leaves. unusable: segments whose rows are not used.
        """
        index = self._path.parent.parent

        def moved(catalog: Catalog, sources: Mapping[str, int]) -> Iterator[tuple[Any, ...]]:
            for number, root, *others, cluster, segment, row in catalog.entries():
                source, now = sources.get(segment), numbers[root]
                stored = (None, None, None) if source is None else (cluster, source, row)
                yield number, -1 - root if now is None else now, *others, *stored

        for beginning, generation in catalogs.items():
            segments = (name for name in generation.manifest.segment_sizes if name not in unusable)
            sources = {name: self._source(f"{beginning}{name}") for name in segments}
            with generation.open_catalog() as catalog, self._writing() as database:
                removals = catalog.removals()
                try:
                    database.executemany(f"INSERT INTO files VALUES ({'?, ' * 13}0)", moved(catalog, sources))
                    if removals.rules:
                        removed = ((file[3],) for file in catalog.entries() if file[3] and removals.hides(*file[1:3]))
                        database.executemany("INSERT OR IGNORE INTO removed VALUES (?)", removed)
                except (sqlite3.IntegrityError, IndexError) as error:
                    raise IndexDamaged(f"the catalog of {index} is damaged ({error}); {REPAIR}.") from error
        with self._writing() as database:
            first = f"min(id + (status <> 'indexed') * {_GONE})"
            database.execute(
                f"""INSERT OR REPLACE INTO contents (hash, source, row, taken, cluster, before)
                    SELECT hash, source, row, taken, cluster, iif(first < {_GONE}, first, NULL) FROM (
                    SELECT hash, source, row, taken, cluster, {first} AS first FROM files
                    WHERE hash IS NOT NULL AND source IS NOT NULL GROUP BY hash)"""
            )
            database.execute(
                """DELETE FROM removed WHERE hash IN (
                   SELECT hash FROM files CROSS JOIN removed USING (hash) WHERE status = 'indexed')"""
            )
            database.execute("DELETE FROM files WHERE root < 0")

    def take_slice(self, folder: Path) -> None:
        """Copies the records of the files that a worker has read, and their rows' numbers, from a slice."""
        path, source = folder / DATABASE_FILE, self._source(folder.name)
        with refuse_if_unwritable(self._path), self._lock:
            self._database.execute("ATTACH ? AS slice", (f"{path.as_uri()}?mode=ro&immutable=1",))
        with self._writing() as database:
            # What the listing says of a file counts more than what was read before.
            database.execute(
                """INSERT OR REPLACE INTO read SELECT * FROM slice.read r WHERE NOT EXISTS (
                   SELECT 1 FROM listed l WHERE l.root = r.root AND l.path = r.path AND l.state = 'read')"""
            )
            database.execute(
                """INSERT OR IGNORE INTO contents (hash, source, row, taken)
                   SELECT hash, ?, row, taken FROM slice.contents""",
                (source,),
            )
        self._database.execute("DETACH slice")

    def _source(self, name: str) -> int:
        with self._writing() as database:
            database.execute("INSERT OR IGNORE INTO sources (name) VALUES (?)", (name,))
        return self._number("SELECT number FROM sources WHERE name = ?", name)

    def has_below(self, folder: FileKey) -> bool:
        root, path = folder
        bounds, condition = (below(path), "AND path >= ? AND path < ?") if path else ((), "")
        query = f"SELECT 1 FROM files WHERE root = ? AND status <> 'gone' {condition} LIMIT 1"
        return bool(self._all(query, root, *bounds))

    def there(self) -> Iterator[FileKey]:
        yield from self._database.execute("SELECT root, path FROM files WHERE status <> 'gone'")

    def take_listed(self, files: Iterable[GalleryFile], *, reusable: bool, checksum: bool) -> Iterator[GalleryFile]:
        """Records the files of a listing, and yields those to read.

        A file need not be read if its size and times are those that the index has, which counts if it is ``reusable``,
        or those of a file that was read before. With ``checksum``, all are read.
        """
        left, last = iter(files), self.listed
        while part := [*islice(left, _AT_ONCE)]:
            rows = [content_columns(file) for file in part]
            with self._writing() as database:
                self._note_read(row for row in rows if row[-1] is not None)
                database.executemany(
                    """INSERT OR REPLACE INTO listed (root, path, size, mtime, ctime, state)
                    VALUES (?1, ?2, ?4, ?5, ?6, CASE
                        WHEN ?8 IS NOT NULL THEN 'read'
                        WHEN ?9 THEN 'unread'
                        WHEN ?10 AND EXISTS (
                            SELECT 1 FROM files WHERE root = ?1 AND path = ?2 AND (size, mtime, ctime) IS (?4, ?5, ?6)
                            AND size IS NOT NULL AND (reason IS NOT NULL OR source IS NOT NULL)) THEN 'known'
                        WHEN EXISTS (
                            SELECT 1 FROM read WHERE root = ?1 AND path = ?2 AND (size, mtime, ctime) IS (?4, ?5, ?6)
                            AND size IS NOT NULL
                            AND (reason IS NOT NULL OR hash IN (SELECT hash FROM contents))) THEN 'read'
                        ELSE 'unread' END)""",
                    [(*row, checksum, reusable) for row in rows],
                )
            yield from self.unread(last)
            last = self.listed

    @property
    def listed(self) -> int:
        """The number of the last listed file."""
        return self._number("SELECT coalesce(max(number), 0) FROM listed")

    def photo_beside(self, photo: FileKey, raw: FileKey) -> tuple[bool, bool, int | None]:
        """Returns if a listed photo is bad, if it and the RAW file beside it are known, and its day if it was read."""
        query = """SELECT l.state = 'known', iif(l.state = 'known', f.reason, r.reason) IS NOT NULL, r.taken,
            EXISTS (SELECT 1 FROM files WHERE (root, path) = (?, ?) AND status = 'indexed')
            FROM listed l LEFT JOIN read r USING (root, path) LEFT JOIN files f USING (root, path)
            WHERE (l.root, l.path) = (?, ?)"""
        for known, bad, taken, has_raw in self._all(query, *raw, *photo):
            return bool(bad), bool(known and has_raw), None if known else taken
        return False, False, None

    def unread(self, last: int = 0) -> Iterator[GalleryFile]:
        """Yields the files to read again, after the first ``last`` listed ones."""
        query = """SELECT number, root, path, size, mtime, ctime FROM listed WHERE state = 'unread' AND number > ?
                   ORDER BY number LIMIT ?"""
        while rows := self._all(query, last, _AT_ONCE):
            for _, root, path, *stamp in rows:
                yield GalleryFile(root, path, None if stamp[0] is None else FileStamp(*stamp))
            last = rows[-1][0]

    def count_settled(self) -> tuple[int, int]:
        """Counts the listed files that need not be read, and the bad ones of them."""
        settled = self._number("SELECT count(*) FROM listed WHERE state <> 'unread'")
        # The joins begin with the few files that are bad.
        query = "SELECT count(*) FROM {} CROSS JOIN listed USING (root, path) WHERE reason IS NOT NULL AND state = ?"
        return settled, self._number(query.format("files"), "known") + self._number(query.format("read"), "read")

    def days(self, content: str) -> Sequence[int | None]:
        """Returns the day on which a photo was taken, None if unknown; nothing for an unknown content."""
        return [taken for (taken,) in self._all("SELECT taken FROM contents WHERE hash = ?", content)]

    def settle(self, listing: FolderListing, next_id: int, *, allow_loss: bool) -> Settled:
        """Turns the files into those of the next generation. Files keep ids; new ones get theirs as they were listed.

        The entries of a folder that could not be listed, and of a file that waits for the next build or could not be
        read, stay as they were. So do all that are not there while others wait, which may be the same under new names;
        and, without ``allow_loss``, if they are too many. Files that are gone stay, too: a file that comes back gets
        its id again, and also its row if that still exists.
        """
        waiting = self._number(
            """SELECT count(*) FROM listed l LEFT JOIN read r USING (root, path)
               WHERE l.state = 'unread' AND r.path IS NULL"""
        )
        # Photos of the index that are there and could not be read stay as they were.
        unread = self._all(f"SELECT r.root, r.path, r.reason {_SPOILED} AND r.hash IS NULL AND r.size IS NULL")
        for file in unread:
            listing.note_unread(*file)
        self._forget_read([(root, path) for root, path, _ in unread])
        all_stay = waiting > 0

        def may_hide(root: int, path: str, moved: int) -> bool:
            return all_stay or listing.may_hide((root, path), moved=bool(moved))

        self._database.create_function("may_hide", 3, may_hide)
        missing = 0 if allow_loss or all_stay else self._number(_COUNT_MISSING)
        shown = "SELECT count(DISTINCT hash) FROM files WHERE status = 'indexed'"
        all_stay = all_stay or (missing >= _FEW and missing * _TENTH > self._number(shown))
        spoiled: list[FileKey] = []
        if missing and all_stay:
            spoiled = self._all(f"SELECT r.root, r.path {_SPOILED}")
            self._forget_read(spoiled)
        with self._writing() as database:
            gone = database.execute(_MARK_GONE).rowcount
            changed = gone + database.execute(_MARK_BACK).rowcount
            removed_before = self._all(_REMOVED_BEFORE)
            changed += database.execute(_TAKE_READ, (next_id,)).rowcount
            query = "UPDATE files SET status = 'gone' WHERE root = ? AND path = ?"
            database.executemany(query, removed_before)
        listing.forget_empty(self.has_below)
        missing = missing if all_stay else 0
        return Settled(changed, gone, missing, len(spoiled), waiting, tuple(removed_before))

    def _forget_read(self, files: Sequence[FileKey]) -> None:
        with self._writing() as database:
            database.executemany("UPDATE listed SET state = 'unread' WHERE root = ? AND path = ?", files)
            database.executemany("DELETE FROM read WHERE root = ? AND path = ?", files)

    def hide(self, hides: Callable[[int, str], bool]) -> int:
        """Marks files that the user removed or excluded as gone. Returns how many."""
        self._database.create_function("hides", 2, hides)
        with self._writing() as database:
            query = "UPDATE files SET status = 'gone', reason = NULL WHERE status <> 'gone' AND hides(root, path)"
            return database.execute(query).rowcount

    def bad(self, names: Sequence[str]) -> tuple[BadFile, ...]:
        """Returns the files that cannot be used, by the paths that users see."""
        rows = self._all("SELECT root, path, reason FROM files WHERE reason IS NOT NULL")
        bad = (BadFile(shown_path(names, root, path), reason) for root, path, reason in rows)
        return tuple(sorted(bad, key=lambda file: file.path))

    def choose_photos(self) -> Photos:
        """Finds the photos that the next generation shows, one for files of equal content, as ``photos`` does."""
        with self._writing() as database:
            database.execute(
                """UPDATE contents SET id = f.id FROM (SELECT hash, min(id) AS id FROM files WHERE status = 'indexed'
                   GROUP BY hash) f WHERE f.hash = contents.hash"""
            )
        return self.photos()

    def photos(self) -> Photos:
        """Reads the rows of all photos. The first source is the segment that this build appends to."""
        ((count,),) = self._shown("count(*)")
        names = tuple(name for (name,) in self._all("SELECT name FROM sources ORDER BY number"))
        table = np.fromiter(self._shown("c.source - 1, c.row, coalesce(c.cluster, -1)"), _ROW, count)
        return Photos(SegmentRows(names, table["source"], table["row"]), table["cluster"])

    def ids(self) -> Iterator[int]:
        return (number for (number,) in self._shown("f.id"))

    def _shown(self, columns: str) -> Iterator[tuple[Any, ...]]:
        query = f"""SELECT {columns} FROM files f JOIN contents c ON c.hash = f.hash AND c.id = f.id
            WHERE f.shard = ? ORDER BY f.id"""
        return self._database.execute(query, (self._shard,))

    def changed_clusters(self) -> set[int]:
        """Returns the clusters of the current generation that lost a photo, or got one back."""
        query = "SELECT DISTINCT cluster FROM contents WHERE cluster IS NOT NULL AND before IS NOT id"
        return {number for (number,) in self._all(query)}

    def counts(self) -> dict[str, int]:
        return dict(self._all("SELECT status, count(*) FROM files WHERE shard = ? GROUP BY status", self._shard))

    def last_id(self) -> int:
        return self._number("SELECT coalesce(max(id), 0) FROM files")

    def deal(self, clusters: npt.NDArray[np.integer[Any]], shard_of: Numbers) -> None:
        """Gives photos (p,), by id, their clusters, and files the shard of their photo, or any. shard_of: (c,)."""
        with self._writing() as database:
            database.execute("CREATE TEMP TABLE placed (id INTEGER PRIMARY KEY, cluster INTEGER)")
            database.executemany("INSERT INTO placed VALUES (?, ?)", zip(self.ids(), map(int, clusters), strict=True))
            database.execute("UPDATE contents SET cluster = p.cluster FROM placed p WHERE p.id = contents.id")
            database.execute("CREATE TEMP TABLE shards (cluster INTEGER PRIMARY KEY, shard INTEGER)")
            database.executemany("INSERT INTO shards VALUES (?, ?)", enumerate(shard_of.tolist()))
            database.execute(
                """UPDATE files SET shard = coalesce((SELECT s.shard FROM contents c JOIN shards s USING (cluster)
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
               LEFT JOIN photos p ON p.id = c.id LEFT JOIN sources k ON f.status = 'gone' AND k.number = f.source
                   AND k.name IN (SELECT value FROM json_each(?))
               WHERE f.shard = ? ORDER BY f.id""",
            (json.dumps([*kept]), self._shard),
        )


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, check_same_thread=False)

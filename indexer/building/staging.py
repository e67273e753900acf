"""Reads and decodes new photos ahead, encodes them in batches, and stages them in a journal, to continue after a kill.

A batch's arrays are first appended to raw files, and then its records are committed to SQLite. If a build is killed
between the two, the files have rows that no record names. The next batch overwrites these rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from indexer.building.progress import Progress
from indexer.store.catalog import GalleryFile, content_columns, has_schema
from indexer.store.files import FileChanging, sync_folder
from indexer.store.folders import Folder
from indexer.store.location import make_folder, refuse_if_unwritable
from indexer.store.roots import FileKey
from indexer.store.rows import DTYPES, Array, Picked, RowArrays, packed, quantised
from model import Matcher
from model.decoding import Decoders, Job
from model.engine import Floats, Tokens, threads, unit
from model.errors import EndedDecoding, ImageError, ImageTooLarge, UnsupportedImage
from model.images import MAX_PIXELS, OpenedImage, day_beside, day_in_name, names_beside

if TYPE_CHECKING:
    from model.network import ClipEmbedder

_SCHEMA = """
CREATE TABLE arrays (name TEXT PRIMARY KEY, shape TEXT NOT NULL);
CREATE TABLE rows (row INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, taken INTEGER);
CREATE TABLE files (
    root INTEGER NOT NULL, path TEXT NOT NULL, hash TEXT, size INTEGER, mtime INTEGER, ctime INTEGER, taken INTEGER,
    reason TEXT, PRIMARY KEY (root, path)
);
"""


class Journal:
    """The journal in one folder, which is made if it does not exist. Close it before the folder is deleted.

    If it is ``complete``, it is only read, by any number of processes; otherwise a damaged one is begun anew. Several
    threads may ask for ``days``. Raises IndexUnwritable.
    """

    def __init__(self, folder: Path, *, complete: bool = False) -> None:
        self._folder, self._lock = folder, threading.Lock()
        with refuse_if_unwritable(folder):
            self._database = _opened(folder, complete)
            self._count: int = self._database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        self._database.close()

    def __len__(self) -> int:
        return self._count

    def rows(self) -> Iterator[tuple[str, int, int | None]]:
        """Yields of each staged row its content hash, its number, and its day."""
        yield from self._database.execute("SELECT hash, row, taken FROM rows ORDER BY row")

    def days(self, content: str) -> Sequence[int | None]:
        """Returns the day on which a photo was taken, None if it does not tell; nothing for one that is not staged."""
        with self._lock:
            return [taken for (taken,) in self._database.execute("SELECT taken FROM rows WHERE hash = ?", (content,))]

    def records(self) -> Iterator[tuple[Any, ...]]:
        """Yields the records of all files that were staged, as ``content_columns``."""
        yield from self._database.execute("SELECT root, path, hash, size, mtime, ctime, taken, reason FROM files")

    def counts(self) -> tuple[int, int]:
        """Counts the files that were staged, and the bad ones of them."""
        files, bad = self._database.execute("SELECT count(*), count(reason) FROM files").fetchone()
        return files, bad

    def append(self, records: Sequence[GalleryFile], days: Mapping[str, int | None], arrays: RowArrays | None) -> None:
        """Commits one batch: the records of its files, and the new rows, if there are any, with hashes and days."""
        with refuse_if_unwritable(self._folder):
            if arrays is not None:
                self._append_arrays(arrays)
            with self._lock, self._database:
                self._database.executemany(
                    "INSERT INTO rows (row, hash, taken) VALUES (?, ?, ?)",
                    [(row, *photo) for row, photo in enumerate(days.items(), self._count)],
                )
                self._database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(content_columns, records)
                )
        self._count += len(days)

    def _append_arrays(self, arrays: RowArrays) -> None:
        named = {name: np.asarray(array) for name, array in arrays.arrays.items()}
        with self._lock, self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO arrays (name, shape) VALUES (?, ?)",
                [(name, json.dumps(array.shape[1:])) for name, array in named.items()],
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
        """Maps all staged rows into memory; None while there are no rows."""
        if not self._count:
            return None
        shapes = dict(self._database.execute("SELECT name, shape FROM arrays"))
        found: dict[str, Array] = {}
        # The journal may come from somebody else: a name in it could be a path, and a dtype could be of objects.
        for name in DTYPES.keys() & shapes.keys():
            full = (self._count, *json.loads(shapes[name]))
            found[name] = np.memmap(self._folder / f"{name}.raw", DTYPES[name], "r", shape=full)
        return RowArrays(found)


def _opened(folder: Path, complete: bool) -> sqlite3.Connection:
    path = folder / "journal.sqlite"
    if complete:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    make_folder(folder, to_work_in=True)
    database = sqlite3.connect(path, check_same_thread=False)
    if not _is_sound(database):
        database.close()
        path.unlink()
        database = sqlite3.connect(path, check_same_thread=False)
        database.executescript(_SCHEMA)
    return database


def _is_sound(database: sqlite3.Connection) -> bool:
    """Returns False for the journal of another program, and for a damaged one, of which a table may have no end."""
    try:
        return has_schema(database, _SCHEMA) and database.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except sqlite3.DatabaseError:
        return False


# A photo of twelve megapixels that is no JPEG takes some 110 MB while it is decoded, so there must not be too many of
# these threads and of the processes that decode for them. Eight decode JPEGs as fast as a GPU encodes them.
MAX_DECODERS = 8
# The most files that are read from servers at the same time.
_MAX_READERS = 16
# Photos that each CPU thread encodes between two steps of the bar. What is encoded is not lost if the build is stopped.
_PHOTOS_A_THREAD = 4
# Bytes that are read of a file beside a photo.
_MAX_BESIDE = 1 << 18


@dataclass(frozen=True)
class _ReadFile:
    """A file that was read, prepared for the network, (3, H, W), and for the embedder, if there is one.

    ``pixels`` is None if the content has a row or cannot be decoded.
    """

    record: GalleryFile
    pixels: Floats | None = None
    for_embedder: Floats | None = None

    @property
    def known(self) -> bool:
        """True if the content has a row."""
        return self.pixels is None and self.record.reason is None


class Stager:
    """Computes the rows of new files and stages them in the journal; ``encoded`` counts them.

    ``incomplete`` are the files that are damaged, and of which a part of the picture may be missing.

    ``known`` returns the day of a content that has a row in the current index, as ``Journal.days`` does; several
    threads call it. Unless it ``keeps_tokens``, only the vectors of photos are kept.
    """

    def __init__(
        self,
        roots: Sequence[Folder],
        matcher: Matcher,
        embedder: ClipEmbedder | None,
        journal: Journal,
        known: Callable[[str], Sequence[int | None]],
        keeps_tokens: bool = True,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._roots, self._matcher, self._embedder, self._journal = roots, matcher, embedder, journal
        self._known, self._keeps_tokens, self._max_pixels = known, keeps_tokens, max_pixels
        # What is computed and not committed yet: the records of files, and the rows of the photos with these days.
        self._records, self._days, self._rows = list[GalleryFile](), dict[str, int | None](), list[RowArrays]()
        self.encoded = 0
        self.incomplete = list[FileKey]()

    def stage(self, files: Iterable[GalleryFile], batch: int, progress: Progress) -> None:
        """Reads all ``files``, and commits them in batches of ``batch``; if it is stopped, what is encoded by then."""
        workers = min(MAX_DECODERS, threads())
        # A reader mostly waits for the server, and then for a decoding process.
        readers = max(workers, _MAX_READERS) if any(root.remote for root in self._roots) else workers
        step = min(batch, _PHOTOS_A_THREAD * threads()) if self._matcher.device == "cpu" else batch
        with (
            Decoders(workers) as decoders,
            ThreadPoolExecutor(readers, thread_name_prefix="decode") as pool,
        ):
            ready = _read_ahead(pool, partial(self._read, decoders), files, window=batch + 2 * readers)
            try:
                while group := _group(ready, step, batch):
                    bad = self._encode(group)
                    if len(self._records) >= batch:
                        self._commit()
                    progress.advance(len(group), bad, known=sum(file.known for file in group))
            finally:
                self._commit()

    def _read(self, decoders: Decoders, file: GalleryFile) -> _ReadFile:
        unread = replace(file, stamp=None)
        try:
            content = self._roots[file.root].read(file.path, file.stamp)
        except FileChanging:
            return _ReadFile(replace(unread, reason="it changed while being read; the next build tries again"))
        except OSError as error:
            return _ReadFile(replace(unread, reason=f"it cannot be read: {error.strerror}"))
        content_hash = hashlib.sha256(content.data).hexdigest()
        record = replace(file, content_hash=content_hash, stamp=content.stamp)
        for day in self._journal.days(content_hash) or self._known(content_hash):
            return _ReadFile(replace(record, taken=self._day_beside(file) if day is None else day))
        try:
            pixels, inputs, opened = self._decoded(decoders, content.data)
            if opened.incomplete:
                self.incomplete.append((file.root, file.path))
            day = self._day_beside(file) if opened.taken is None else opened.taken.toordinal()
            return _ReadFile(replace(record, taken=day), pixels, inputs)
        except (UnsupportedImage, ImageTooLarge, EndedDecoding) as error:
            # The next build tries it again: then there may be a decoder, another limit, or more memory.
            return _ReadFile(replace(record, stamp=None, reason=_sentence(error)))
        except MemoryError:
            return _ReadFile(replace(record, stamp=None, reason="not enough memory to decode it"))
        except (ImageError, ValueError, Image.DecompressionBombError) as error:
            return _ReadFile(replace(record, reason=_sentence(error)))

    def _day_beside(self, file: GalleryFile) -> int | None:
        """Finds the day of a photo without one in its file: in a file beside it, or in its name."""
        folder, (inside, slash, name) = self._roots[file.root], file.path.rpartition("/")
        # A server would be asked for each.
        for beside in () if folder.remote else names_beside(name):
            with suppress(OSError):
                if (day := day_beside(folder.read_part(inside + slash + beside, _MAX_BESIDE))) is not None:
                    return day.toordinal()
        day = day_in_name(name)
        return None if day is None else day.toordinal()

    def _decoded(self, decoders: Decoders, data: bytes) -> tuple[Floats, Floats | None, OpenedImage]:
        """Opens a photo. Returns it prepared for the network and for the embedder, and as it was opened."""
        preprocessing = self._matcher.preprocessing
        if self._embedder is not None:
            whole = decoders.run(data, Job(self._max_pixels, least_side=preprocessing.least_side("photo")))
            return preprocessing.prepare(whole.image, "photo"), self._embedder.prepare(whole.image), whole
        # Only network-sized pixels are sent between processes, because copying costs time.
        small = decoders.run(data, Job.preparing(preprocessing, "photo", self._max_pixels))
        return preprocessing.normalised(np.asarray(small.image)), None, small

    def _encode(self, group: Sequence[_ReadFile]) -> int:
        """Computes the rows of new photos. Returns how many of the files cannot be indexed."""
        records, days = [file.record for file in group], dict[str, int | None]()
        pixels, inputs = list[Floats](), list[Floats]()
        for file in group:
            content = file.record.content_hash
            # Equal files may have been read at the same time.
            if file.pixels is None or content is None or content in self._days or self._journal.days(content):
                continue
            if content not in days:
                days[content] = file.record.taken
                pixels.append(file.pixels)
                inputs += [] if file.for_embedder is None else [file.for_embedder]
        if pixels:
            arrays = self._compute(self._matcher.encode(np.stack(pixels), "photo"), inputs)
            # Whether all values of a photo are finite.
            finite = np.all(
                [np.isfinite(array[:]).reshape(len(days), -1).all(axis=1) for array in arrays.arrays.values()], axis=0
            )
            broken = {content for content, fine in zip(days, finite, strict=True) if not fine}
            if broken:
                reason = "the network returns values that are not finite for it"
                records = [replace(r, reason=reason) if r.content_hash in broken else r for r in records]
                arrays = arrays.take(finite)
                days = {content: day for content, day in days.items() if content not in broken}
            self._rows.append(arrays)
        self._records += records
        self._days |= days
        self.encoded += len(days)
        return sum(record.reason is not None for record in records)

    def _commit(self) -> None:
        records, days, rows = self._records, self._days, self._rows
        self._records, self._days, self._rows = [], {}, []
        if records:
            self._journal.append(records, days, RowArrays.joined(rows) if days else None)

    def _compute(self, tokens: Tokens, inputs: Sequence[Floats]) -> RowArrays:
        arrays: dict[str, Array | Picked] = {"vectors": unit(tokens.ret).astype(np.float16)}
        if self._embedder is not None:
            arrays["embeddings"] = self._embedder.embed(inputs).astype(np.float16)
        if tokens.features.shape[1] > 1 and self._keeps_tokens:
            # Tokens are always rounded to float16 first, so that equal photos get equal bytes in each segment. Values
            # that float16 cannot hold become infinite, and are reported as not finite.
            with np.errstate(over="ignore"):
                features = tokens.features.astype(np.float16)
            arrays["tokens"], arrays["scales"] = quantised(features)
            arrays["positions"] = tokens.positions.astype(np.uint8)
            if tokens.regions is not None and tokens.colours is not None:
                arrays["regions"] = packed(tokens.regions)
                arrays["colours"] = np.rint(tokens.colours).clip(-128, 127).astype(np.int8)
        return RowArrays(arrays)


def _read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[GalleryFile], _ReadFile], files: Iterable[GalleryFile], window: int
) -> Iterator[_ReadFile]:
    """Yields the files in order. The pool's threads read up to ``window`` files ahead, while the network computes."""
    waiting: deque[Future[_ReadFile]] = deque()
    for file in files:
        waiting.append(pool.submit(read, file))
        if len(waiting) > window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _group(ready: Iterator[_ReadFile], photos: int, most: int) -> list[_ReadFile]:
    """Takes so many photos, with the files between them that need not be encoded, but no more than ``most`` files."""
    group = list[_ReadFile]()
    for file in ready:
        group.append(file)
        photos -= file.pixels is not None
        if not photos or len(group) == most:
            break
    return group


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Reads and decodes new photos ahead, encodes and commits them in batches, and reports the progress of a build.

Also reads photos of the index again, to find the boxes that they lack.
"""

import errno
import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Never, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tqdm import tqdm

from sketch_search.indexer.building.database import BuildDatabase
from sketch_search.indexer.errors import IndexUnwritable
from sketch_search.indexer.store.catalog import GalleryFile
from sketch_search.indexer.store.files import FileChanging, FileStamp, name_of_text, text_of_name, write_atomically
from sketch_search.indexer.store.generation import IndexSettings
from sketch_search.indexer.store.location import FileKey, IndexFolder, Root, refuse_if_unwritable
from sketch_search.indexer.store.remote import Folder
from sketch_search.indexer.store.rows import Array, ArraySubset, PhotoArrays
from sketch_search.model import Matcher
from sketch_search.model.answers import ProgressState
from sketch_search.model.decoding import Decoders, File, FileInParts, Job
from sketch_search.model.engine import Floats, threads, unit
from sketch_search.model.engine.detector import SIZE, Detector
from sketch_search.model.engine.tokens import round_tokens
from sketch_search.model.errors import EndedDecoding, ImageError, ImageTooLarge, UnsupportedImage
from sketch_search.model.files import read_regular
from sketch_search.model.images import Day, OpenedImage, beside, best_day, day_beside, day_in_path, files_beside
from sketch_search.model.limits import MAX_PIXELS

if TYPE_CHECKING:
    from sketch_search.model.torch import ClipEmbedder

# A photo of twelve megapixels that is no JPEG takes some 110 MB while it is decoded, so there must not be too many of
# these threads and of the processes that decode for them. Eight decode JPEGs as fast as a GPU encodes them.
MAX_DECODERS = 8
_MAX_READERS = 16
# Bytes of a file up to which each reader holds it whole.
_LARGE = 32 << 20
# Photos that each CPU thread encodes between two steps of the bar. What is encoded is not lost if the build is stopped.
_PHOTOS_A_THREAD = 4
_MAX_BESIDE = 1 << 18
# Folders whose files beside photos are known at a time.
_FOLDERS_KNOWN = 256
# Photos whose boxes are found between two steps of the bar, and before the time is estimated. What is found is kept.
_BATCH, _FIRST = 64, 8
Item = TypeVar("Item")
Read = TypeVar("Read")
Phase = Literal["reading", "encoding", "boxes", "clustering", "writing", "done", "stopped"]
_INTERVAL = 1.0
# Seconds between two lines where there is no terminal for a bar: each pause is twice the last one, up to the second.
_FIRST_LINES, _LINES = 4.0, 32.0
_MAX_BYTES = 10_000


class Progress:
    """Reports the progress of a build to a file, and with ``bar`` on standard error, as a bar or lines."""

    def __init__(self, *, bar: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar_wanted = bar
        self._bar: tqdm[Never] | None = None
        self._file: Path | None = None
        self._clock = clock
        self._phase: Phase = "reading"
        self._phase_start = clock()
        self._written = float("-inf")
        self._said, self._pause = clock(), _FIRST_LINES
        self._done = self._total = self._bad = self._skipped = self._known = 0

    @contextmanager
    def of_build(self, file: Path) -> Iterator[None]:
        """While the block runs, writes the JSON document to ``file``, at most once a second within a phase."""
        self._file = file
        ended: Phase = "stopped"
        try:
            yield
            ended = "done"
        finally:
            self._close_bar()
            self._phase = ended
            # The build may have stopped because nothing can be written.
            with suppress(IndexUnwritable):
                self._write()

    def start(self, phase: Phase, total: int = 0) -> None:
        """Begins a phase of ``total`` photos; 0 if their number is not known."""
        self._close_bar()
        skipped = self._skipped if phase == "encoding" else 0
        self._phase, self._done, self._total, self._known = phase, skipped, total + skipped, 0
        self._phase_start = self._clock()
        if self._bar_wanted and self._total:
            self._bar = tqdm(
                total=self._total, initial=self._done, desc=self._phase, unit="photo", dynamic_ncols=True, disable=None
            )
        self._write()

    def skip(self, files: int, bad: int = 0) -> None:
        """Counts files that need not be read as done in the phase "encoding", which comes later."""
        self._skipped, self._bad = self._skipped + files, self._bad + bad

    def advance(self, done: int = 1, bad: int = 0, *, known: int = 0) -> None:
        """Counts files. ``known`` of them were only read, as after a resumption, and say nothing of the speed."""
        self._done += done
        self._bad += bad
        self._known += known
        if self._bar is not None:
            self._bar.update(done)
        if self._clock() - self._written >= _INTERVAL:
            self._write()

    def say(self, sentence: str) -> None:
        if self._bar_wanted:
            tqdm.write(sentence, file=sys.stderr)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self) -> None:
        self._written = self._clock()
        elapsed = self._written - self._phase_start
        done = self._done - self._known - (self._skipped if self._phase == "encoding" else 0)
        rate = done / elapsed if done and elapsed > 0 else None
        state = ProgressState(
            phase=self._phase,
            done=self._done,
            total=self._total,
            bad=self._bad,
            photos_per_second=rate,
            seconds_left=(self._total - self._done) / rate if rate else None,
            updated=time.time(),
        )
        if self._bar_wanted and self._written - self._said >= self._pause and not sys.stderr.isatty():
            self._said, self._pause = self._written, min(2 * self._pause, _LINES)
            counts = f": {self._done} of {self._total} photos" if self._total else ""
            print(f"{self._phase}{counts}", file=sys.stderr, flush=True)
        if self._file is not None:
            with refuse_if_unwritable(self._file):
                write_atomically(self._file, state.model_dump_json().encode())


def read_progress(index: Path) -> ProgressState | None:
    """Reads the last reported state of the last build of an index; None if there was no build."""
    try:
        return ProgressState.model_validate_json(read_regular(IndexFolder(index).progress, _MAX_BYTES))
    except (OSError, ValidationError):
        return None


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo and its parts prepared for the network, and for the embedder if there is one."""

    opened: OpenedImage
    pixels: Floats
    for_embedder: Sequence[Floats] = ()


@dataclass(frozen=True)
class _ReadFile:
    """A file that was read; no ``photo`` if it has a row or cannot be decoded."""

    record: GalleryFile
    photo: DecodedPhoto | None = None


class Stager:
    """Computes the rows of new files and stages them in the database; ``encoded`` counts them.

    ``incomplete`` are the files that are damaged, and of which a part of the picture may be missing.
    """

    def __init__(
        self,
        settings: IndexSettings,
        matcher: Matcher,
        embedder: "ClipEmbedder | None",
        database: BuildDatabase,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._roots = roots = [root.folder for root in settings.roots]
        self._matcher, self._embedder, self._database = matcher, embedder, database
        self._keeps_tokens, self._max_pixels = settings.tokens > 1, max_pixels
        self._detector = None if settings.detector is None else Detector()
        # What is computed and not committed yet: the records of files, and the contents with these rows.
        self._records, self._rows = list[GalleryFile](), list[PhotoArrays]()
        self._new = dict[str, tuple[float | None, int]]()
        self._listing = lru_cache(maxsize=None)(lambda root: roots[root].listing())
        self._names_beside = lru_cache(_FOLDERS_KNOWN)(
            lambda root, folder: beside(self._names_in(root, folder, "file"))
        )
        self._parts = lru_cache(_FOLDERS_KNOWN)(lambda root, folder: self._names_in(root, folder, "folder"))
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
            closing(_read_ahead(readers, partial(self._read, decoders), files, window=batch + 2 * readers)) as ready,
        ):
            try:
                while group := _group(ready, step, batch):
                    bad = self._encode(group)
                    if len(self._records) >= batch:
                        self._commit()
                    known = sum(file.photo is None and file.record.reason is None for file in group)
                    progress.advance(len(group), bad, known=known)
            finally:
                self._commit()

    def _read(self, decoders: Decoders, file: GalleryFile) -> _ReadFile:
        record = unread = replace(file, stamp=None)
        try:
            content_hash, stamp, content = _open(self._roots[file.root], file.path, file.stamp)
            record = replace(file, content_hash=content_hash, stamp=stamp)
            if self._database.knows(content_hash):
                taken = self._database.day_of(content_hash)
                return _ReadFile(replace(record, taken=self._day_of(file) if taken is None else taken))
            photo = _decode(content, decoders, self._matcher, self._max_pixels, self._embedder)
            opened = photo.opened
            if opened.incomplete:
                self.incomplete.append((file.root, file.path))
            return _ReadFile(replace(record, taken=self._day_of(file, opened)), photo)
        except (UnsupportedImage, ImageTooLarge, EndedDecoding) as error:
            # The next build tries it again: then there may be a decoder, another limit, or more memory.
            return _ReadFile(replace(record, stamp=None, reason=_sentence(error)))
        except FileChanging:
            return _ReadFile(replace(unread, reason="it changed while being read; the next build tries again"))
        except OSError as error:
            return _ReadFile(replace(unread, reason=f"it cannot be read: {error.strerror}"))
        except MemoryError:
            return _ReadFile(replace(record, stamp=None, reason="not enough memory to decode it"))
        except (ImageError, ValueError, Image.DecompressionBombError) as error:
            return _ReadFile(replace(record, reason=_sentence(error)))

    def _day_of(self, file: GalleryFile, opened: OpenedImage | None = None) -> float | None:
        """Finds the number of a photo's day: by the photo, a file beside it, or its path."""
        day = best_day(self._days_of(file, opened))
        if day and not day.day and file.stamp and file.stamp.mtime is not None:
            with suppress(OverflowError, ValueError, OSError):
                changed = date.fromtimestamp(file.stamp.mtime / 1e9)
                day = best_day((day, Day(changed.year, changed.month, changed.day)))
        return None if day is None else day.number

    def _days_of(self, file: GalleryFile, opened: OpenedImage | None) -> Iterator[Day | None]:
        taken, zone = (opened.taken, opened.zone) if opened else (None, None)
        yield taken
        inside, _, name = file.path.rpartition("/")
        for root, folder in self._folders_beside(file.root, inside):
            for described in files_beside(name, self._names_beside(root, folder)):
                with suppress(OSError):
                    path = f"{folder}/{described}" if folder else described
                    yield day_beside(self._roots[root].read_part(path, _MAX_BESIDE), zone, name)
        yield day_in_path(file.path)

    def _folders_beside(self, root: int, inside: str) -> Iterator[FileKey]:
        """Yields the folder of a photo, and for a Google Takeout the same folder of the export's other parts."""
        # A server would be asked for each file.
        if self._roots[root].remote:
            return
        yield root, inside
        before, takeout, after = f"/{inside}/".rpartition("/Takeout/")
        if takeout:
            around = before.strip("/").rpartition("/")[0]
            for number, other in enumerate(self._roots):
                if number != root and not other.remote:
                    yield number, f"{takeout}{after}".strip("/")
            for part in self._parts(root, around) if before else ():
                yield root, f"{around}/{part}{takeout}{after}".strip("/")

    def _names_in(self, root: int, folder: str, kind: Literal["file", "folder"]) -> list[str]:
        with suppress(OSError):
            entries = self._listing(root)(name_of_text(folder))
            return [text_of_name(entry.name) for entry in entries if entry.kind == kind]
        return []

    def _encode(self, group: Sequence[_ReadFile]) -> int:
        records, photos = [file.record for file in group], list[DecodedPhoto]()
        new = dict[str, tuple[float | None, int]]()
        for file in group:
            content = file.record.content_hash
            # Equal files may have been read at the same time.
            if file.photo and content and not (content in new or content in self._new or self._database.knows(content)):
                new[content] = file.record.taken, len(file.photo.opened.parts)
                photos.append(file.photo)
        if photos:
            arrays = self._compute(photos)
            # Whether all values of a photo and its parts are finite.
            rows = 1 + np.array([parts for _, parts in new.values()])
            by_row = [np.isfinite(array[:]).reshape(rows.sum(), -1).all(axis=1) for array in arrays.arrays.values()]
            finite = np.logical_and.reduceat(np.all(by_row, axis=0), np.cumsum(rows) - rows)
            broken = {content for content, fine in zip(new, finite, strict=True) if not fine}
            if broken:
                reason = "the network returns values that are not finite for it"
                records = [replace(r, reason=reason) if r.content_hash in broken else r for r in records]
                arrays = arrays.take(np.repeat(finite, rows))
                new = {content: known for content, known in new.items() if content not in broken}
            self._rows.append(arrays)
        self._records += records
        self._new |= new
        self.encoded += len(new)
        return sum(record.reason is not None for record in records)

    def _commit(self) -> None:
        records, new, rows = self._records, self._new, self._rows
        self._records, self._new, self._rows = [], {}, []
        if records:
            self._database.stage(records, new, PhotoArrays.join(rows) if new else None)

    def _compute(self, photos: Sequence[DecodedPhoto]) -> PhotoArrays:
        tokens = self._matcher.encode(np.concatenate([photo.pixels for photo in photos]), "photo")
        arrays: dict[str, Array | ArraySubset] = {"vectors": unit(tokens.ret).astype(np.float16)}
        if self._embedder is not None:
            inputs = [prepared for photo in photos for prepared in photo.for_embedder]
            arrays["embeddings"] = self._embedder.embed(inputs).astype(np.float16)
        if tokens.features.shape[1] > 1 and self._keeps_tokens:
            if self._detector is not None:
                wholes = [whole for photo in photos for whole in photo.opened.wholes]
                tokens = replace(tokens, boxes=self._detector.detect_all(wholes))
            arrays |= round_tokens(tokens)
        return PhotoArrays(arrays)


def _open(folder: Folder, path: str, listed: FileStamp | None = None) -> tuple[str, FileStamp, File]:
    """Opens a file: its SHA-256, its stamp, and its bytes, or of a large one its parts. Raises OSError."""
    stamp = listed or folder.stamp(path)
    if stamp.size <= _LARGE:
        content = folder.read(path, stamp)
        return hashlib.sha256(content.data).hexdigest(), content.stamp, content.data
    digest = folder.digest(path)

    def read(start: int, count: int) -> bytes:
        part = folder.read_part(path, count, start=start, size=digest.stamp.size)
        if not folder.remote and folder.stamp(path) != digest.stamp:
            raise FileChanging(errno.EAGAIN, "it changed while being read", path)
        return part

    return digest.sha256, digest.stamp, FileInParts(digest.stamp.size, read, folder.remote)


def _decode(
    file: File, decoders: Decoders, matcher: Matcher, max_pixels: int, embedder: "ClipEmbedder | None" = None
) -> DecodedPhoto:
    """Decodes a file. Raises as ``Decoders.run`` does."""
    preprocessing = matcher.preprocessing
    if embedder is not None:
        opened = decoders.run(file, Job(max_pixels, preprocessing.least_side("photo"), whole=SIZE, parts=True))
        pictures = opened.image, *opened.parts
        pixels = [preprocessing.prepare(picture, "photo") for picture in pictures]
        return DecodedPhoto(opened, np.stack(pixels), [*map(embedder.prepare, pictures)])
    # Only the small pictures are sent between processes, because copying costs time.
    opened = decoders.run(file, Job.preparing(preprocessing, "photo", max_pixels, whole=SIZE, parts=True))
    pixels = [preprocessing.normalise(np.asarray(picture)) for picture in (opened.image, *opened.parts)]
    return DecodedPhoto(opened, np.stack(pixels))


def _read_ahead(readers: int, read: Callable[[Item], Read], files: Iterable[Item], window: int) -> Generator[Read]:
    """Yields what threads read of the files, in order, up to ``window`` ahead; closing waits for those being read."""
    waiting: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="decode") as pool:
        try:
            for file in files:
                waiting.append(pool.submit(read, file))
                if len(waiting) > window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _group(ready: Iterator[_ReadFile], photos: int, most: int) -> list[_ReadFile]:
    """Takes up to ``photos`` photos and the files between them that need no encoding, but at most ``most`` files."""
    group = list[_ReadFile]()
    for file in ready:
        group.append(file)
        photos -= file.photo is not None
        if not photos or len(group) == most:
            break
    return group


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class Rereader:
    """Reads photos of the index again. roots: those that the numbers of files mean."""

    roots: Sequence[Root]
    matcher: Matcher
    max_pixels: int

    def read(self, decoders: Decoders, content: str, files: Iterable[FileKey]) -> DecodedPhoto | None:
        """Decodes the first file that still has this content; None if there is none, or it cannot be decoded now."""
        for root, path in files:
            with suppress(OSError, MemoryError, ImageError, ValueError, Image.DecompressionBombError):
                content_hash, _, file = _open(self.roots[root].folder, path)
                if content_hash == content:
                    return _decode(file, decoders, self.matcher, self.max_pixels)
        return None

    def find_boxes(
        self, photos: Sequence[tuple[str, list[FileKey]]], database: BuildDatabase, progress: Progress
    ) -> int:
        """Finds the boxes of these contents, and notes them. Returns of how many; the others cannot be read now."""
        detector, workers, count, done = Detector(), min(MAX_DECODERS, threads()), 0, 0
        progress.start("boxes", len(photos))
        started = time.monotonic()

        def look(photo: tuple[str, list[FileKey]]) -> tuple[str, NDArray[np.uint8] | None]:
            decoded = self.read(decoders, *photo)
            return photo[0], None if decoded is None else np.stack([*map(detector.detect, decoded.opened.wholes)])

        with Decoders(workers) as decoders, closing(_read_ahead(workers, look, photos, window=_BATCH)) as ready:
            while part := [*islice(ready, _BATCH if done else _FIRST)]:
                boxes_by_content = {content: boxes for content, boxes in part if boxes is not None}
                database.note_boxes(boxes_by_content)
                count, done = count + len(boxes_by_content), done + len(part)
                progress.advance(len(part), len(part) - len(boxes_by_content))
                if done == len(part):
                    left = (time.monotonic() - started) / done * (len(photos) - done)
                    progress.say(
                        f"{len(photos)} photos were indexed without boxes of their things; finding these takes "
                        f"{_about(left)}. If it is stopped, the next build continues."
                    )
        return count


def _about(seconds: float) -> str:
    if seconds < 90:
        return "a second" if seconds < 1.5 else f"about {round(seconds)} seconds"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"

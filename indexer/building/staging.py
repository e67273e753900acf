"""The long part of a build: every new file is read once, hashed, decoded, prepared, encoded, embedded, and staged."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from indexer.building.encoding import PhotoEncoder
from indexer.building.journal import FileRecord, Journal
from indexer.building.progress import Progress
from indexer.embedding import Embedder
from indexer.store import FileChanging, FoundFile, RowArrays, read_below
from model import Matcher
from model.errors import ImageError, UnsupportedImage

# Twelve megapixels that are no JPEG take some 110 MB while they are decoded; eight threads keep a GPU busy with JPEGs.
_MOST_DECODERS = 8


@dataclass(frozen=True)
class _Prepared:
    """A file that was read; ``pixels`` (3, H, W) only for new, good content, ``extra`` for the embedder."""

    record: FileRecord
    pixels: torch.Tensor | None = None
    extra: torch.Tensor | None = None


class Stager:
    """Computes rows for files and stages them in the journal.

    Args:
        roots: absolute paths of the gallery's roots. known: content hashes whose rows exist already, in the live index
            or the journal; it grows as rows are staged.
    """

    def __init__(
        self, roots: Sequence[Path], matcher: Matcher, embedder: Embedder, journal: Journal, known: set[str]
    ) -> None:
        self._roots = roots
        self._matcher = matcher
        self._embedder = embedder
        self._journal = journal
        self._known = known
        self.encoded = 0

    def stage(self, files: Sequence[FoundFile], batch: int, progress: Progress) -> dict[tuple[int, str], FileRecord]:
        """Read all ``files``, in batches of ``batch`` that are committed one by one; what each came to, by file."""
        records: dict[tuple[int, str], FileRecord] = {}
        workers = min(_MOST_DECODERS, torch.get_num_threads())
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
            PhotoEncoder(self._matcher, batch) as encoder,
        ):
            ready = _read_ahead(pool, self._prepare, files, window=batch + 2 * workers)
            for start in range(0, len(files), batch):
                group = [next(ready) for _ in range(min(batch, len(files) - start))]
                done = self._commit(group, encoder)
                records.update({(record.root, record.path): record for record in done})
                progress.advance(len(done), sum(record.reason is not None for record in done))
        return records

    def _prepare(self, file: FoundFile) -> _Prepared:
        if file.reason is not None:
            return _Prepared(FileRecord(file.root, file.path, "", file.size, file.mtime, file.reason))
        try:
            content = read_below(self._roots[file.root], file.path)
        except FileChanging:
            reason = "it changed while it was read; the next build tries again"
            return _Prepared(_to_retry(FileRecord(file.root, file.path, "", file.size, file.mtime, None), reason))
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
            return _Prepared(_to_retry(FileRecord(file.root, file.path, "", file.size, file.mtime, None), reason))
        digest = hashlib.sha256(content.data).hexdigest()
        record = FileRecord(file.root, file.path, digest, content.size, content.mtime, None)
        if digest in self._known:
            return _Prepared(record)
        try:
            image = self._matcher.open(content.data, "photo")
            return _Prepared(record, self._matcher.prepare(image, "photo"), self._embedder.prepare(image))
        except UnsupportedImage as error:
            # A decoder that is installed later opens the very same bytes.
            return _Prepared(_to_retry(record, _sentence(error)))
        except MemoryError:
            return _Prepared(_to_retry(record, "there was not enough memory to decode it"))
        except (ImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            return _Prepared(_with_reason(record, _sentence(error)))

    def _commit(self, group: Sequence[_Prepared], encoder: PhotoEncoder) -> list[FileRecord]:
        new: dict[str, _Prepared] = {}
        for item in group:
            if item.pixels is not None and item.record.hash not in self._known:
                new.setdefault(item.record.hash, item)
        records = [item.record for item in group]
        arrays = None
        if new:
            arrays = self._compute(list(new.values()), encoder)
            finite = np.all([_finite(array) for array in arrays.named().values()], axis=0)
            broken = {name for name, fine in zip(new, finite, strict=True) if not fine}
            if broken:
                reason = "the network gives no finite values for it"
                records = [_with_reason(r, reason) if r.hash in broken else r for r in records]
                arrays = arrays.take(finite)
                new = {name: item for name, item in new.items() if name not in broken}
        self._journal.append(records, list(new), arrays if new else None)
        self._known.update(new)
        self.encoded += len(new)
        return records

    def _compute(self, items: Sequence[_Prepared], encoder: PhotoEncoder) -> RowArrays:
        tokens = encoder.encode([item.pixels for item in items if item.pixels is not None])
        ret = tokens.ret.float().cpu().numpy()
        embeddings = self._embedder.embed([item.extra for item in items], ret)
        if tokens.features.shape[1] == 1:
            return RowArrays(ret, embeddings)
        features = tokens.features.float().cpu().numpy()
        # What float16 cannot hold becomes infinite, and the caller reports it.
        with np.errstate(over="ignore"):
            halves = features.astype(np.float16)
        positions = tokens.positions.cpu().numpy().astype(np.uint8)
        # Of the halves, so that rows of format 1 that are written again become what they would be if computed now.
        return RowArrays(ret, embeddings, halves, positions).quantised()


def _read_ahead(
    pool: ThreadPoolExecutor, work: Callable[[FoundFile], _Prepared], files: Iterable[FoundFile], window: int
) -> Iterator[_Prepared]:
    """Results in order, at most ``window`` of them waiting: decoding goes on while the network computes."""
    waiting: deque[Future[_Prepared]] = deque()
    for file in files:
        waiting.append(pool.submit(work, file))
        if len(waiting) > window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _with_reason(record: FileRecord, reason: str) -> FileRecord:
    return FileRecord(record.root, record.path, record.hash, record.size, record.mtime, reason)


def _to_retry(record: FileRecord, reason: str) -> FileRecord:
    """A failure that may be cured without any sign of a change in the file: no file has this size."""
    return FileRecord(record.root, record.path, record.hash, -1, 0, reason)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _finite(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(np.isfinite(array).reshape(len(array), -1).all(axis=1))

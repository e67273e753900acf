"""The long part of a build: each new file is read once, hashed, decoded, encoded, embedded, and staged."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from indexer.building.encoding import PhotoEncoder
from indexer.building.progress import Progress
from indexer.embedding import Embedder
from indexer.store import FileChanging, FileKey, GalleryFile, RowArrays, TokenArrays, read_below
from model import Matcher
from model.decoding import Decoders
from model.errors import EndedDecoding, ImageError, UnsupportedImage
from model.images import MAX_PIXELS, Source

# A photo of twelve megapixels that is no JPEG takes some 110 MB while it is decoded, so there must not be too many of
# these threads and of the processes that decode for them. Eight decode JPEGs as fast as a GPU encodes them.
_MOST_DECODERS = 8


@dataclass(frozen=True)
class _Photo:
    """A new photo, ready for the networks.

    Attributes:
        content_hash: SHA-256 of its bytes, hex. pixels: (3, H, W), as the network wants them.
        for_embedder: what the embedder wants.
    """

    content_hash: str
    pixels: torch.Tensor
    for_embedder: torch.Tensor | None


@dataclass(frozen=True)
class _ReadFile:
    """A file that was read: what became of it; and its photo, unless the content has a row or cannot be decoded."""

    record: GalleryFile
    photo: _Photo | None = None


class _Opener:
    """Opens one picture as ``model.images.open_image`` does, in another process, and keeps what it says of its day.

    Attributes:
        taken: nothing before the picture is opened.
    """

    def __init__(self, decoders: Decoders, network_input: int | None) -> None:
        self._decoders = decoders
        self._network_input = network_input
        self.taken: date | None = None

    def __call__(
        self, source: Source, *, max_pixels: int = MAX_PIXELS, least_side: int | None = None, sketch: bool = False
    ) -> Image.Image:
        opened = self._decoders.open_dated(
            source,
            max_pixels=max_pixels,
            least_side=least_side,
            sketch=sketch,
            network_input=self._network_input,
        )
        self.taken = opened.taken
        return opened.image


class Staged(Protocol):
    """Where computed rows are kept until the next generation is written, as ``Journal`` does."""

    def append(self, records: Sequence[GalleryFile], hashes: Sequence[str], arrays: RowArrays | None) -> None:
        """Keep one batch, see ``Journal.append``."""


class Stager:
    """Computes the rows of new files and stages them in the journal.

    Args:
        roots: the absolute paths of the gallery's roots.
        known: the contents that have a row, in the live index or the journal: by content hash the day on which each was
            taken, or None for one that says none.

    Attributes:
        encoded: how many photos the network has encoded.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        matcher: Matcher,
        embedder: Embedder,
        journal: Staged,
        known: Mapping[str, date | None],
    ) -> None:
        self._roots = roots
        self._matcher = matcher
        self._embedder = embedder
        self._journal = journal
        self._known = dict(known)
        self.encoded = 0

    def stage(self, files: Sequence[GalleryFile], batch: int, progress: Progress) -> dict[FileKey, GalleryFile]:
        """Read all ``files``, and commit them in batches of ``batch``. Gives what became of each file."""
        records: dict[FileKey, GalleryFile] = {}
        workers = min(_MOST_DECODERS, torch.get_num_threads())
        with (
            Decoders(workers) as decoders,
            ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
            PhotoEncoder(self._matcher, batch) as encoder,
        ):
            # What is not handed over from process to process costs no time.
            # A padded picture is not made of a squashed one.
            whole = self._embedder.uses_pictures or self._matcher.preprocessing.padded
            side = None if whole else self._matcher.config.image_size
            read = partial(self._read, make_opener=partial(_Opener, decoders, side))
            ready = _read_ahead(pool, read, files, window=batch + 2 * workers)
            for start in range(0, len(files), batch):
                group = [next(ready) for _ in range(min(batch, len(files) - start))]
                done = self._commit(group, encoder)
                records.update({record.key: record for record in done})
                progress.advance(len(done), sum(record.reason is not None for record in done))
        return records

    def _read(self, file: GalleryFile, make_opener: Callable[[], _Opener]) -> _ReadFile:
        unread = replace(file, stamp=None)
        try:
            content = read_below(self._roots[file.root], file.path)
        except FileChanging:
            return _ReadFile(replace(unread, reason="it changed while it was read; the next build tries again"))
        except OSError as error:
            return _ReadFile(replace(unread, reason=f"it cannot be read: {error.strerror}"))
        content_hash = hashlib.sha256(content.data).hexdigest()
        record = replace(file, content_hash=content_hash, stamp=content.stamp)
        if content_hash in self._known:
            return _ReadFile(replace(record, taken=self._known[content_hash]))
        opener = make_opener()
        try:
            image = self._matcher.open(content.data, "photo", opener)
            pixels = self._matcher.prepare(image, "photo")
            photo = _Photo(content_hash, pixels, self._embedder.prepare(image))
            return _ReadFile(replace(record, taken=opener.taken), photo)
        except (UnsupportedImage, EndedDecoding) as error:
            # Tried again by the next build: a decoder may be installed by then, or there is more memory.
            return _ReadFile(replace(record, stamp=None, reason=_sentence(error)))
        except MemoryError:
            return _ReadFile(replace(record, stamp=None, reason="there was not enough memory to decode it"))
        except (ImageError, ValueError, Image.DecompressionBombError) as error:
            return _ReadFile(replace(record, reason=_sentence(error)))

    def _commit(self, group: Sequence[_ReadFile], encoder: PhotoEncoder) -> list[GalleryFile]:
        new: dict[str, _Photo] = {}
        for file in group:
            if file.photo is not None and file.photo.content_hash not in self._known:
                new.setdefault(file.photo.content_hash, file.photo)
        records = [file.record for file in group]
        arrays = None
        if new:
            arrays = self._compute(list(new.values()), encoder)
            finite = np.all([_finite(array) for array in arrays.named().values()], axis=0)
            broken = {content for content, fine in zip(new, finite, strict=True) if not fine}
            if broken:
                reason = "the network gives no finite values for it"
                records = [replace(r, reason=reason) if r.content_hash in broken else r for r in records]
                arrays = arrays.take(finite)
                new = {content: photo for content, photo in new.items() if content not in broken}
        self._journal.append(records, list(new), arrays if new else None)
        self._known.update({r.content_hash: r.taken for r in records if r.content_hash in new})
        self.encoded += len(new)
        return records

    def _compute(self, photos: Sequence[_Photo], encoder: PhotoEncoder) -> RowArrays:
        tokens = encoder.encode([photo.pixels for photo in photos])
        ret = tokens.ret.float().cpu().numpy()
        embeddings = self._embedder.embed([photo.for_embedder for photo in photos], ret)
        if tokens.features.shape[1] == 1:
            return RowArrays(ret, embeddings)
        # Rounded to float16 first, as always: an equal photo gets equal bytes in each segment. What float16 cannot hold
        # becomes infinite, and is reported as not finite.
        with np.errstate(over="ignore"):
            features = tokens.features.float().cpu().numpy().astype(np.float16)
        positions = tokens.positions.cpu().numpy().astype(np.uint8)
        return RowArrays(ret, embeddings, TokenArrays.of(features, positions))


def _read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[GalleryFile], _ReadFile], files: Iterable[GalleryFile], window: int
) -> Iterator[_ReadFile]:
    """The files in order, read by the pool's threads: up to ``window`` files ahead, while the network computes."""
    waiting: deque[Future[_ReadFile]] = deque()
    for file in files:
        waiting.append(pool.submit(read, file))
        if len(waiting) > window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _finite(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(m,) bool: which rows have finite values only."""
    return np.asarray(np.isfinite(array).reshape(len(array), -1).all(axis=1))

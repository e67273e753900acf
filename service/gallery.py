"""Defines the gallery that the service uses, searches one index on this machine, and makes thumbnails of photos."""

import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from sketch_search.indexer import Index, PhotoEntry, PhotoFilter, PhotoUnavailable, current_stamp
from sketch_search.indexer.store.files import write_atomically
from sketch_search.model import Matcher
from sketch_search.model.decoding import File, Job, RunJob, decode_inline
from sketch_search.model.engine import Floats, Modality, Tokens
from sketch_search.model.errors import ImageError
from sketch_search.model.files import read_regular
from sketch_search.model.limits import MAX_PIXELS, pause
from sketch_search.model.ranking import likeness_to, likenesses
from sketch_search.model.search import Clusters, Ids, PhotoGallery, PhotoRows, Scores, first_of_each, most_alike
from sketch_search.model.search.photos import BLOCK
from sketch_search.service.errors import NotFound, ShardsLost

# The most bytes of a thumbnail's file. One of noise, of the largest size, has 0.8 million.
_LARGEST = 4 * 2**20
# Filters whose photos are kept in order, 16 bytes for each.
_LISTS_KEPT = 4


def file_manager() -> list[str] | None:
    """Finds the command that shows a folder, or on macOS a file, in the file manager."""
    if sys.platform == "darwin":
        # Without -R, an application folder would be started.
        command = ["open", "-R"]
    elif sys.platform == "win32":
        command = ["explorer"]
    else:
        command = ["xdg-open"] if {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys() else []
    return command if command and shutil.which(command[0]) else None


def reveal(file: Path) -> None:
    """Shows a file, or the ZIP file it is in. Raises NotFound without a file manager or for another machine's file."""
    command = file_manager()
    if command is None or not file.is_absolute():
        raise NotFound("The server's machine has no file manager, or the photo is on another machine.")
    existing = next(path for path in (file, *file.parents) if path.exists())
    # In a thread that waits for the program: some end only when their window is closed.
    shown = [*command, str(existing if sys.platform == "darwin" else existing.parent)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    threading.Thread(target=subprocess.run, args=(shown,), kwargs=quiet, daemon=True).start()


@contextmanager
def as_unavailable(entry: PhotoEntry) -> Iterator[None]:
    """Turns an ImageError into PhotoUnavailable, because the photo was readable when it was indexed."""
    try:
        yield
    except ImageError as error:
        raise PhotoUnavailable(f"photo {entry.id} can no longer be opened; build the index again.") from error


def thumbnail(original: File, size: int, run: RunJob = decode_inline, max_pixels: int = MAX_PIXELS) -> bytes:
    """Makes an upright JPEG whose longest side has at most ``size`` pixels. Raises ImageError."""
    image = run(original, Job(max_pixels, least_side=size, longest_side=size)).image
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


class ThumbnailCache:
    """Keeps thumbnails in memory and in the index, up to some bytes, then its newer half. Threads may share it."""

    def __init__(self, capacity: int, folder: Path | None = None, folder_capacity: int = 0) -> None:
        """``capacity``, ``folder_capacity``: bytes kept at most; 0 keeps nothing."""
        self._kept: LRUCache[str, bytes] = LRUCache(capacity, getsizeof=len)
        self._lock = threading.Lock()
        self._folder, self._folder_capacity = folder, folder_capacity
        self._writing = threading.Lock()
        # How many bytes may still be written before the folder must be scanned.
        self._room = 0

    def find(self, key: str) -> bytes | None:
        with self._lock:
            return self._kept.get(key)

    def read(self, key: str) -> bytes | None:
        """Returns the thumbnail in the folder under ``key``, or None."""
        if self._folder is None:
            return None
        try:
            thumbnail = read_regular(self._folder / f"{key}.jpg", _LARGEST, links=False)
        except OSError:
            return None
        # A power failure leaves empty or truncated files.
        if not (thumbnail.startswith(b"\xff\xd8") and thumbnail.endswith(b"\xff\xd9")):
            return None
        self._remember(key, thumbnail)
        return thumbnail

    def keep(self, key: str, thumbnail: bytes) -> None:
        """Keeps a thumbnail, unless it exceeds the capacity."""
        self._remember(key, thumbnail)
        # An index that was deleted meanwhile must not be recreated as a folder of thumbnails.
        if self._folder is None or len(thumbnail) > self._folder_capacity or current_stamp(self._folder.parent) is None:
            return
        with self._writing, suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if self._folder.is_symlink():
                return
            if self._room < len(thumbnail):
                self._room = self._make_room(len(thumbnail))
            write_atomically(self._folder / f"{key}.jpg", thumbnail, sync=False)
            self._room -= len(thumbnail)

    def _remember(self, key: str, thumbnail: bytes) -> None:
        with self._lock:
            if len(thumbnail) <= self._kept.maxsize:
                self._kept[key] = thumbnail

    def _make_room(self, needed: int) -> int:
        """Returns how many bytes still fit in the folder, after removing its older half if ``needed`` do not fit."""
        assert self._folder is not None
        for left in self._folder.glob(".*.partial"):
            # By a server that was killed; another one keeps nothing then.
            left.unlink(missing_ok=True)
        files_kept = ((file.lstat(), file) for file in self._folder.glob("*-*.jpg"))
        files = [(status.st_mtime_ns, status.st_size, file) for status, file in files_kept]
        room = self._folder_capacity - sum(size for _, size, _ in files)
        if room < needed:
            for _, size, file in sorted(files):
                if room >= max(needed, self._folder_capacity // 2):
                    break
                file.unlink()
                room += size
        return room


class LocalGallery(PhotoGallery):
    """A generation of an index, opened with the checkpoint that made its tokens. Tokens are read from mapped files.

    system: that of plain searches. computed: as of its manifest. generation_id: identifies the generation. created:
    when it was made; None for shards. missing: the names of shards that are not searched, because they do not answer.
    """

    missing: tuple[str, ...] = ()

    def __init__(self, index: Index, matcher: Matcher) -> None:
        clusters = Clusters(
            index.cluster_sizes,
            index.vectors.centroids,
            index.centroids.features,
            index.centroids.positions.astype(np.uint8),
            None if index.embeddings is None else index.embeddings.centroids,
            index.cluster_parts,
        )
        made = index.manifest.identity
        regions = made.regions if made.tokens > 1 else 0
        super().__init__(index, matcher, clusters, made.tokens, regions, index.boxes_kept)
        self.index, self.system = index, index.manifest.system
        # The next page is of the same photos.
        self._newest = lru_cache(maxsize=_LISTS_KEPT)(index.newest)
        self.photo_count, self.embedder = index.photo_count, index.manifest.embedder
        self.generation, self.generation_id = index.generation, index.generation_id
        self.created, self.computed = index.manifest.created, index.manifest.computed
        # The index finds entries and files itself.
        self.photo, self.photos, self.photo_at = index.photo, index.photos, index.photo_at
        self.address_of, self.open_photo = index.address_of, index.open_photo

    def without(self, lost: ShardsLost) -> NoReturn:
        """Returns shards without these, too. Raises ``lost`` if there are none of them."""
        raise lost

    def newest(self, photo_filter: PhotoFilter, count: int) -> tuple[PhotoRows, NDArray[np.int64], int]:
        """Finds the newest photos that pass a filter: their rows, newest first, days, as ordinals, and how many do."""
        rows, days = self._newest(photo_filter)
        return rows[:count], days[:count], len(rows)

    def without_photos(self, folders: Sequence[str]) -> tuple[str, ...]:
        """Returns those of these folders, as results show them, below which there is no photo."""
        return self.index.without_photos(folders)

    def rows_of_ids(self, ids: Sequence[int]) -> PhotoRows:
        """Returns the rows of the photos with these ids, (m,). Raises UnknownPhoto."""
        return np.array([self._row_of(entry) for entry in self.index.photos(ids)], np.int64)

    def _row_of(self, entry: PhotoEntry) -> int:
        rows = self.clusters.rows_of(entry.cluster)
        return int(rows[np.searchsorted(self.index.ids[rows], entry.id)])

    def entries(self, rows: PhotoRows) -> tuple[PhotoEntry, ...]:
        """Returns the entries of these photos, in their order."""
        return self.photos(self.index.ids[rows].tolist())

    def paths(self, rows: PhotoRows) -> list[tuple[str, ...]]:
        return [entry.paths for entry in self.entries(rows)]

    def with_parts(self, rows: PhotoRows) -> tuple[NDArray[np.int64], PhotoRows]:
        """Returns the rows of these photos and of their parts, and before them which of the photos each shows."""
        photos, parts = np.nonzero(rows[:, None] == self.index.parts_of)
        return np.concatenate([np.arange(len(rows)), photos]), np.concatenate([rows, self.index.parts[parts]])

    def vectors(self, rows: PhotoRows) -> Floats:
        """Returns the vectors of these photos, (m, d)."""
        return self.index.vectors.of(rows)

    def boxes(self, rows: PhotoRows) -> NDArray[np.uint8]:
        """Returns the boxes of these photos, (m, BOXES, 6)."""
        return self.index.photo_boxes(rows)

    def rank_all(self, subject: Tokens, modality: Modality, mean: Floats | None = None) -> tuple[Ids, Scores]:
        """Returns all ids, and minus the distance of each to a sketch, or its likeness to a photo; a batch of one.

        mean: (d,) of all vectors of the gallery, if this is one of its shards.
        """
        near, ids = [np.empty(0, np.float32)], self.index.ids
        for start in range(0, len(ids), BLOCK):
            pause()
            vectors = self.index.vectors.of(np.arange(start, min(start + BLOCK, len(ids))))
            if modality == "photo":
                near.append(likeness_to(subject.ret, vectors, self.clusters.mean if mean is None else mean))
            else:
                near.append(self._matcher.scores(subject, Tokens.of_ret(vectors), "ret")[0])
        scores = np.concatenate(near)
        best = first_of_each(ids, scores) if len(self.index.parts) else slice(None)
        return ids[best], scores[best]

    def alike(self, photos: Floats, count: int, mean: Floats | None = None) -> list[tuple[Ids, Scores]]:
        """Finds the ``count`` photos that look most like each of these, (q, d), best first: ids and likenesses."""
        nearest, wholes = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in photos], self.index.wholes
        for start in range(0, len(wholes), BLOCK):
            pause()
            rows = wholes[start : start + BLOCK]
            ids, vectors = self.index.ids[rows], self.index.vectors.of(rows)
            near = likenesses(photos, vectors, self.clusters.mean if mean is None else mean)
            nearest = [most_alike([best, (ids, column)], count) for best, column in zip(nearest, near.T, strict=True)]
        return nearest

    def original(self, photo: int) -> tuple[int, str | None]:
        """Returns the size and media type of the file with these bytes; None for no image. Raises as ``open_photo``."""
        return self.index.original(photo)

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Reads a part of these bytes, from a file of this size. Raises as ``open_photo``."""
        return self.index.part_of_photo(photo, size, start, count)

"""Makes thumbnails of photos, and shows photos in the file manager."""

import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cachetools import LRUCache

from sketch_search.indexer import PhotoEntry, PhotoUnavailable, current_stamp
from sketch_search.indexer.store.files import write_atomically
from sketch_search.model.decoding import Job, RunJob, decode_inline
from sketch_search.model.errors import ImageError
from sketch_search.model.files import read_regular
from sketch_search.model.limits import MAX_PIXELS
from sketch_search.service.errors import NotFound

# The most bytes of a thumbnail's file. One of noise, of the largest size, has 0.8 million.
_LARGEST = 4 * 2**20


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
    there = next(path for path in (file, *file.parents) if path.exists())
    # In a thread that waits for the program: some end only when their window is closed.
    shown = [*command, str(there if sys.platform == "darwin" else there.parent)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    threading.Thread(target=subprocess.run, args=(shown,), kwargs=quiet, daemon=True).start()


@contextmanager
def still_opening(entry: PhotoEntry) -> Iterator[None]:
    """Turns an ImageError into PhotoUnavailable, because the photo was readable when it was indexed."""
    try:
        yield
    except ImageError as error:
        raise PhotoUnavailable(f"photo {entry.id} can no longer be opened; build the index again.") from error


def thumbnail(original: bytes, size: int, run: RunJob = decode_inline, max_pixels: int = MAX_PIXELS) -> bytes:
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
        """Returns the thumbnail in memory under ``key``, or None."""
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

    def _make_room(self, wanted: int) -> int:
        """Returns how many bytes still fit in the folder, after removing its older half if ``wanted`` do not fit."""
        assert self._folder is not None
        for left in self._folder.glob(".*.partial"):
            # By a server that was killed; another one keeps nothing then.
            left.unlink(missing_ok=True)
        files_kept = ((file.lstat(), file) for file in self._folder.glob("*-*.jpg"))
        files = [(status.st_mtime_ns, status.st_size, file) for status, file in files_kept]
        room = self._folder_capacity - sum(size for _, size, _ in files)
        if room < wanted:
            for _, size, file in sorted(files):
                if room >= max(wanted, self._folder_capacity // 2):
                    break
                file.unlink()
                room += size
        return room

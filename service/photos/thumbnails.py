"""Small JPEGs of the photos; those asked for last are kept in memory."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

from cachetools import LRUCache, cached

from model.decoding import Job, RunJob, run_here


def thumbnail(original: bytes, size: int, run: RunJob = run_here) -> bytes:
    """A JPEG of an image file, upright, its longest side at most ``size`` pixels. Raises ImageError."""
    image = run(original, Job(longest_side=size))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


class ThumbnailCache:
    """The thumbnails asked for last, up to a number of bytes. Safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        """``capacity``: bytes kept at most; 0 keeps nothing."""
        self._cache: LRUCache[str, bytes] = LRUCache(capacity, getsizeof=len)
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """What is kept under ``key``; what ``make`` returns, which is then kept, where nothing is.

        Two threads may make the same thumbnail at once, but none waits while another makes one.
        """
        return cached(self._cache, key=lambda: key, lock=self._lock)(make)()

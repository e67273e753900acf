"""Small JPEGs of the photos, and the ones asked for last kept in memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from model.images import open_image


def thumbnail(original: bytes, size: int) -> bytes:
    """A JPEG of an image file, upright, its longest side at most ``size`` pixels. Raises ImageError."""
    image = open_image(original)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


class Shelf:
    """The files asked for last, up to a number of bytes. Safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        """``capacity``: bytes kept at most."""
        self._capacity = capacity
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """What is kept under ``key``; made, and kept, where nothing is."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Made outside the lock: two may make the same one, but none waits for the making of another.
        made = make()
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._capacity:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped)
        return made

"""Keeps CLIP's towers, by which any text can be searched for, and sketches compared as CLIP compares pictures.

They take seconds to load and hundreds of megabytes of memory, so they are loaded once, when they are first needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from PIL import Image

from indexer import EmbedderEntry, EmbedderUnavailable, open_towers
from model.images import Pixels

if TYPE_CHECKING:
    from model.network import ClipTowers

Vector: TypeAlias = NDArray[np.float32]
# The model, by the SHA-256 of its weights, and a text.
_Key: TypeAlias = tuple[str | None, str]

# Texts whose vectors are kept, some 2 KB each.
TEXTS_KEPT = 256
# Towers that could not be loaded are tried again after this time: their files may have been put in place.
RETRY_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class TextVector:
    """A text by CLIP, (e,) float32, whose product with a photo's vector is CLIP's logit."""

    values: Vector


@dataclass(frozen=True)
class ClipVectors:
    """A query by CLIP, and the milliseconds it took.

    ``text`` is None without a text, ``sketch``, (e,) of unit length, without a sketch or another method than "clip";
    ``refusal`` says why there are none, although the index was clustered by CLIP.
    """

    text: TextVector | None = None
    sketch: Vector | None = None
    refusal: str | None = None
    milliseconds: float = 0.0


@dataclass(frozen=True)
class _Attempt:
    """An attempt to load an index's towers: when it ended, by the monotonic clock, and why it failed if it did."""

    entry: EmbedderEntry
    ended: float
    towers: ClipTowers | None
    refusal: str = ""


class Towers:
    """Holds the towers of the CLIP model that an index was clustered by. Threads may share it."""

    def __init__(
        self,
        device: str,
        load: Callable[[EmbedderEntry, str], ClipTowers] = open_towers,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Loads nothing yet. load, now: replaced by tests."""
        self._device = device
        self._load = load
        self._now = now
        # One thread computes at a time: two would only slow each other.
        self._lock = threading.Lock()
        self._last: _Attempt | None = None
        self._texts: LRUCache[_Key, TextVector] = LRUCache(TEXTS_KEPT)
        self._texts_lock = threading.Lock()

    def refusal(self, entry: EmbedderEntry) -> str | None:
        """Returns why the towers of this index could not be loaded, if that was tried."""
        last = self._last
        return last.refusal if last is not None and last.entry == entry and last.towers is None else None

    def is_at_once(self, entry: EmbedderEntry, text: str | None, pixels: Pixels | None) -> bool:
        """True if ``vectors`` would answer without computing anything."""
        if self._is_refused(entry):
            return True
        return pixels is None and (text is None or self._known(_key(entry, text)) is not None)

    def vectors(self, entry: EmbedderEntry, text: str | None, pixels: Pixels | None) -> ClipVectors:
        """Returns a text and a sketch, (H, W, 3) uint8, by the CLIP model of an index, which it may load first."""
        began = time.perf_counter()
        if text is None and pixels is None:
            return ClipVectors()
        known = None if text is None else self._known(_key(entry, text))
        if known is not None and pixels is None:
            return ClipVectors(known)
        with self._lock:
            attempt = self._attempt(entry)
            if attempt.towers is None:
                return ClipVectors(refusal=attempt.refusal)
            if text is not None and known is None:
                known = TextVector(attempt.towers.text(text))
                self._keep(_key(entry, text), known)
            drawn = None if pixels is None else attempt.towers.image(Image.fromarray(pixels))
        return ClipVectors(known, drawn, milliseconds=(time.perf_counter() - began) * 1000)

    def _known(self, key: _Key) -> TextVector | None:
        with self._texts_lock:
            return self._texts.get(key)

    def _keep(self, key: _Key, vector: TextVector) -> None:
        with self._texts_lock:
            self._texts[key] = vector

    def _attempt(self, entry: EmbedderEntry) -> _Attempt:
        """Returns the towers of this index, loaded if they are not, or why they cannot be."""
        last = self._last
        if last is not None and last.entry == entry and (last.towers is not None or self._is_refused(entry)):
            return last
        # The towers of another index go first, or two would be in memory.
        self._last = None
        try:
            self._last = _Attempt(entry, self._now(), self._load(entry, self._device))
        except EmbedderUnavailable as error:
            self._last = _Attempt(entry, self._now(), None, str(error))
        return self._last

    def _is_refused(self, entry: EmbedderEntry) -> bool:
        """True if the towers of this index could not be loaded, and it is too early to try again."""
        last = self._last
        if last is None or last.entry != entry or last.towers is not None:
            return False
        return self._now() - last.ended < RETRY_SECONDS


def _key(entry: EmbedderEntry, text: str) -> _Key:
    return entry.sha256, " ".join(text.split())

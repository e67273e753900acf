"""Loads CLIP's text tower, to search by any text, once and when first needed: it takes seconds and memory."""

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from sketch_search.indexer import EmbedderEntry, EmbedderUnavailable, open_text_tower

if TYPE_CHECKING:
    from sketch_search.model.training.network import TextTower

# Texts whose vectors are kept, some 2 KB each.
TEXTS_KEPT = 256
# A tower that could not be loaded is tried again after this time: its files may have been added.
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class ReadText:
    """A text by CLIP, vector (e,) float32 or None, its milliseconds, and why there is none for an index by CLIP."""

    vector: NDArray[np.float32] | None = None
    refusal: str | None = None
    milliseconds: float = 0.0


@dataclass(frozen=True)
class _Attempt:
    """An attempt to load an index's tower: when it ended, by the monotonic clock, and the error if it failed."""

    entry: EmbedderEntry
    ended: float
    tower: "TextTower | None"
    refusal: str | None


class TextTowers:
    """Holds the text tower of the CLIP model that an index was clustered by. Threads may share it."""

    def __init__(self, device: str) -> None:
        """Loads nothing yet."""
        self._device = device
        # One thread computes at a time: two would only slow each other down.
        self._lock = threading.Lock()
        self._last: _Attempt | None = None
        # By the SHA-256 of the model's weights, and the text.
        self._texts: LRUCache[tuple[str | None, str], NDArray[np.float32]] = LRUCache(TEXTS_KEPT)
        self._texts_lock = threading.Lock()

    def refusal(self, entry: EmbedderEntry) -> str | None:
        """Returns the reason why loading this index's tower failed, or None."""
        last = self._last
        return last.refusal if last is not None and last.entry == entry else None

    def read(self, entry: EmbedderEntry, text: str) -> ReadText:
        """Reads a text by the CLIP model of an index, loading the model if needed."""
        began = time.perf_counter()
        key = entry.sha256, " ".join(text.split())
        with self._texts_lock:
            known = self._texts.get(key)
        if known is not None:
            return ReadText(known)
        with self._lock:
            attempt = self._attempt(entry)
            if attempt.tower is None:
                return ReadText(refusal=attempt.refusal)
            vector = attempt.tower.text(text)
        with self._texts_lock:
            self._texts[key] = vector
        return ReadText(vector, milliseconds=(time.perf_counter() - began) * 1000)

    def _attempt(self, entry: EmbedderEntry) -> _Attempt:
        """Returns the tower of this index, loading it if needed, or the reason why it cannot be loaded."""
        last = self._last
        if last is not None and last.entry == entry and (last.tower or time.monotonic() - last.ended < RETRY_SECONDS):
            return last
        # The tower of another index is dropped first, or two would be in memory.
        self._last = None
        del last
        tower, refusal = None, None
        try:
            tower = open_text_tower(entry, self._device)
        except EmbedderUnavailable as error:
            refusal = str(error)
        self._last = _Attempt(entry, time.monotonic(), tower, refusal)
        return self._last

"""Opens the newest generation of an index that passes a trial search."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from indexer import Address, IndexerError, IndexRefused, live_stamp, open_index
from model import Matcher, ModelError
from service.errors import NotReady
from service.gallery import LocalGallery, OpenGallery
from service.schemas import SearchQuery, ShardInfo
from service.search import Searcher, methods_of

# Why nothing can be searched before the first attempt is over.
STARTING = "the server has just started, and is opening the network and the index"
# Results of each search of the trial.
RESULTS = 5
# Seconds after which a refused generation is tried again: a disk may be mounted, or a checkpoint put in its place.
RETRY_SECONDS = 10.0
# Errors whose message is written for whoever runs the server; of any other the log has the trace.
_FORESEEN = (ModelError, IndexerError, OSError)

log = logging.getLogger("sketch_search")

# Tells generations on the disk apart (``indexer.live_stamp``); None if there is no index.
Stamp = tuple[int, ...] | None


@dataclass(frozen=True)
class _Attempt:
    """An attempt to open what was live on the disk: when it ended, by the monotonic clock, and why it was refused."""

    stamp: Stamp
    ended: float
    refusal: str | None


class LiveIndex:
    """An index on this machine, in the newest generation that passed its trial. Threads may share it."""

    def __init__(
        self, folder: Path, matcher: Callable[[], Matcher], gallery_roots: Sequence[Address] = (), keeps: int = 1
    ) -> None:
        """Opens nothing yet.

        gallery_roots: where the roots are on this machine; none for where they were built. keeps: how many of the
            newest
        generations stay open; others only while somebody in this process has them.
        """
        self._folder, self._matcher, self._roots = folder, matcher, gallery_roots or None
        self._kept: deque[LocalGallery] = deque(maxlen=keeps)
        self._lock = threading.Lock()
        self._last: _Attempt | None = None

    @property
    def refused(self) -> str | None:
        """Why the newest generation was rejected while an older one answers, or None."""
        return self._last.refusal if self._kept and self._last is not None else None

    @property
    def reason(self) -> str | None:
        """Why no generation is open, or None."""
        if self._kept:
            return None
        return (self._last.refusal if self._last is not None else None) or STARTING

    def check_ready(self) -> None:
        if self.reason is not None:
            raise NotReady(self.reason)

    def opened(self) -> OpenGallery | None:
        gallery = self.newest
        return None if gallery is None else lambda without: gallery

    @property
    def newest(self) -> LocalGallery | None:
        return self._kept[-1] if self._kept else None

    def generation(self, generation_id: str) -> LocalGallery | None:
        """Returns a generation that is kept, or None."""
        return next((kept for kept in self._kept if kept.generation_id == generation_id), None)

    def infos(self) -> tuple[ShardInfo, ...]:
        return ()

    def close(self) -> None:
        for kept in self._kept:
            kept.index.close()

    def refresh(self) -> bool:
        """Opens what is live on the disk, unless it is in use or was just refused. Returns whether that came into use.

        If it cannot be opened, the generation in use stays.
        """
        before = self.newest
        with self._lock:
            while self._is_worth_an_attempt(stamp := live_stamp(self._folder)):
                try:
                    self._open(stamp)
                # Whatever is wrong with a new generation, the old one goes on.
                except Exception as error:
                    # Builds that end meanwhile delete the generation that was being opened; then the newest counts.
                    if stamp == live_stamp(self._folder):
                        self._refuse(error, stamp)
                        break
        return self.newest is not before

    def _open(self, stamp: Stamp) -> None:
        matcher = self._matcher()
        index = open_index(self._folder, matcher, gallery_roots=self._roots)
        try:
            fresh = LocalGallery(index, matcher)
            check_searches(Searcher(fresh, matcher))
        except BaseException:
            index.close()
            raise
        # A search may outlive its generation, so the files are closed when nothing refers to them any more.
        weakref.finalize(fresh, index.close)
        if (known := self.generation(fresh.generation_id)) is not None:
            self._kept.remove(known)
        self._kept.append(fresh)
        self._last = _Attempt(stamp, time.monotonic(), None)

    def _is_worth_an_attempt(self, stamp: Stamp) -> bool:
        if self._last is None or self._last.stamp != stamp:
            return True
        return self._last.refusal is not None and time.monotonic() - self._last.ended >= RETRY_SECONDS

    def _refuse(self, error: Exception, stamp: Stamp) -> None:
        foreseen = isinstance(error, _FORESEEN)
        reason = str(error) if foreseen else f"it cannot be opened ({type(error).__name__}); the log has more."
        # The same refusal is logged once.
        if self._last is None or (reason, stamp) != (self._last.refusal, self._last.stamp):
            kept = "not ready" if self.newest is None else f"generation {self.newest.generation} stays live"
            unforeseen = error.__cause__ if foreseen else error
            log.warning("%s: %s", kept, reason, exc_info=None if isinstance(unforeseen, _FORESEEN) else unforeseen)
        self._last = _Attempt(stamp, time.monotonic(), reason)


def check_searches(searcher: Searcher) -> None:
    """Searches with a small drawing by default and by each method. Raises IndexRefused if that fails."""
    gallery = searcher.gallery
    for method in ("auto", *methods_of(searcher.matcher, gallery.tokens_kept)):
        query = SearchQuery(k=RESULTS, nprobe=None if method == "auto" else 1, method=method)
        try:
            found = searcher.search(_drawing(), query)
        # Damaged arrays fail in whatever way their shapes and values make numpy or PyTorch fail.
        except Exception as error:
            raise _refused(gallery.generation, f"a search by {method} failed ({type(error).__name__})") from error
        wanted = min(RESULTS, gallery.photo_count)
        if len(found.results) != wanted:
            raise _refused(
                gallery.generation, f"a search by {method} found {len(found.results)} photos instead of {wanted}"
            )
        scores = [hit.score for hit in found.results] + [cluster.score for cluster in found.clusters]
        if not all(map(math.isfinite, scores)):
            raise _refused(gallery.generation, f"a search by {method} gave a score that is not a number")


def _drawing() -> Image.Image:
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((12, 20, 52, 60), outline="black", width=2)
    draw.line((8, 28, 32, 4, 56, 28), fill="black", width=2)
    return picture


def _refused(generation: str, problem: str) -> IndexRefused:
    return IndexRefused(f"generation {generation} failed its trial: {problem}; run `sketch-search index verify`.")

"""Opens the newest generation of an index that passes a trial search."""

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from indexer import Address, IndexerError, IndexRefused, live_stamp, open_index
from model import Matcher, ModelError
from model.terminal import printable
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
    """An index on this machine, in the newest generations that passed their trial. Threads may share it.

    A generation is closed when it is no longer kept, and nobody holds it any more.
    """

    def __init__(
        self, folder: Path, matcher: Callable[[], Matcher], gallery_roots: Sequence[Address] = (), keeps: int = 1
    ) -> None:
        """Opens nothing yet.

        gallery_roots: where the roots are on this machine; none for where they were built. keeps: how many of the
            newest generations are kept.
        """
        self._folder, self._matcher, self._roots, self._keeps = folder, matcher, gallery_roots or None, keeps
        # The newest is the last.
        self._kept: tuple[LocalGallery, ...] = ()
        self._refreshing = threading.Lock()
        self._is_closed = False
        self._last: _Attempt | None = None

    @property
    def refused(self) -> str | None:
        """Why the newest generation was rejected while an older one answers, or None."""
        return self._last.refusal if self._kept and self._last is not None else None

    @property
    def reason(self) -> str:
        """Why no generation is open, if none is."""
        return (self._last.refusal if self._last is not None else None) or STARTING

    @property
    def newest(self) -> LocalGallery | None:
        kept = self._kept
        return kept[-1] if kept else None

    def find(self, generation_id: str) -> LocalGallery | None:
        """Returns a generation, which stays open while somebody holds it; None if it is not kept."""
        return next((one for one in self._kept if one.generation_id == generation_id), None)

    def opened(self) -> OpenGallery:
        gallery = self.newest
        if gallery is None:
            raise NotReady(self.reason)
        return lambda without: gallery

    def infos(self) -> tuple[ShardInfo, ...]:
        return ()

    def close(self) -> None:
        with self._refreshing:
            self._is_closed = True
            self._kept = ()

    def refresh(self) -> bool:
        """Opens what is live on the disk, unless it is in use or was just refused. Returns whether that came into use.

        If it cannot be opened, the generation in use stays.
        """
        before = self.newest
        with self._refreshing:
            while not self._is_closed and self._is_worth_an_attempt(stamp := live_stamp(self._folder)):
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
        weakref.finalize(fresh, index.close)
        others = [kept for kept in self._kept if kept.generation_id != fresh.generation_id]
        self._kept = tuple([*others, fresh][-self._keeps :])
        self._last = _Attempt(stamp, time.monotonic(), None)

    def _is_worth_an_attempt(self, stamp: Stamp) -> bool:
        if self._last is None or self._last.stamp != stamp:
            return True
        return self._last.refusal is not None and time.monotonic() - self._last.ended >= RETRY_SECONDS

    def _refuse(self, error: Exception, stamp: Stamp) -> None:
        foreseen = isinstance(error, _FORESEEN)
        said = str(error) if foreseen else f"it cannot be opened ({type(error).__name__}); the log has more."
        reason = printable(said)
        # The same refusal is logged once.
        if self._last is None or (reason, stamp) != (self._last.refusal, self._last.stamp):
            kept = "not ready" if self.newest is None else f"generation {self.newest.generation} stays live"
            unforeseen = error.__cause__ if foreseen else error
            log.warning("%s: %s", kept, reason, exc_info=None if isinstance(unforeseen, _FORESEEN) else unforeseen)
        self._last = _Attempt(stamp, time.monotonic(), reason)


def check_searches(searcher: Searcher) -> None:
    """Searches with a small drawing by default and by each method. Raises IndexRefused if that fails."""
    gallery = searcher.gallery
    wanted = min(RESULTS, gallery.photo_count)
    for method in ("auto", *methods_of(searcher.matcher, gallery.tokens_kept)):
        query = SearchQuery(k=RESULTS, nprobe=None if method == "auto" else 1, method=method)
        try:
            found = searcher.search(_drawing(), query)
            scores = [hit.score for hit in found.results] + [cluster.score for cluster in found.clusters]
            if len(found.results) != wanted or not all(map(math.isfinite, scores)):
                raise ValueError("photos are missing, or have no numbers as scores")
        # Damaged arrays fail in whatever way their shapes and values make numpy or PyTorch fail.
        except Exception as error:
            raise IndexRefused(
                f"generation {gallery.generation} failed its trial: a search by {method} failed "
                f"({type(error).__name__}: {error}); run `sketch-search index verify`."
            ) from error


def _drawing() -> Image.Image:
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((12, 20, 52, 60), outline="black", width=2)
    draw.line((8, 28, 32, 4, 56, 28), fill="black", width=2)
    return picture

"""Opens the current generation, the newest that passes a trial search, and engines over it."""

import asyncio
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw

from sketch_search.indexer import Address, IndexerError, IndexRefused, current_stamp, open_index
from sketch_search.indexer.store.location import THUMBNAILS
from sketch_search.model import Matcher, ModelError
from sketch_search.model.decoding import RunJob, decode_inline
from sketch_search.model.search import methods_of
from sketch_search.model.terminal import printable
from sketch_search.service.clip_text import TextTowers
from sketch_search.service.engine import Engine, open_matcher
from sketch_search.service.errors import NotReady
from sketch_search.service.gallery import LocalGallery, OpenGallery
from sketch_search.service.photos import ThumbnailCache
from sketch_search.service.schemas.info import ShardInfo
from sketch_search.service.schemas.query import SearchQuery
from sketch_search.service.search import Searcher
from sketch_search.service.settings import Settings, index_path
from sketch_search.service.sharding import Shards

# The reason for refusing searches before the first attempt is over.
STARTING = "the server has just started and is opening the network and the index"
# Results of each search of the trial.
RESULTS = 5
# Seconds after which a refused generation is tried again: a disk may have been mounted, or a checkpoint added.
RETRY_SECONDS = 10.0
# Errors whose message is for the person who runs the server; for any other, the log has the trace.
_FORESEEN = (ModelError, IndexerError, OSError)

# Seconds between two checks for new generations, which for one index check a file's date. A shard that comes back
# may be left out for this long.
POLL_SECONDS = 0.5
THUMBNAIL_BYTES, THUMBNAIL_FILE_BYTES = 32 * 2**20, 256 * 2**20

log = logging.getLogger("sketch_search")

# Identifies a generation on the disk (``indexer.current_stamp``); None if there is no index.
Stamp = tuple[int, ...] | None


@dataclass(frozen=True)
class _Attempt:
    """An attempt to open a generation: when it ended, why it was refused, whether the checkpoint was opened."""

    stamp: Stamp
    ended: float
    refusal: str | None = None
    opened_matcher: bool = True


class LiveIndex:
    """An index here in its newest tried generations, each closed once neither kept nor held. Threads may share it."""

    infos: tuple[ShardInfo, ...] = ()

    def __init__(
        self, folder: Path, matcher: Callable[[], Matcher], gallery_roots: Sequence[Address] = (), keeps: int = 1
    ) -> None:
        """Opens nothing yet. gallery_roots: their places here; none as built. keeps: how many generations."""
        self._folder, self._matcher, self._roots, self._keeps = folder, matcher, gallery_roots or None, keeps
        # The newest is the last.
        self._kept: tuple[LocalGallery, ...] = ()
        self._refreshing = threading.Lock()
        self._is_closed = False
        self._last: _Attempt | None = None

    @property
    def refused(self) -> str | None:
        """The reason why the newest generation was rejected while an older one is in use, or None."""
        return self._last.refusal if self._kept and self._last is not None else None

    @property
    def reason(self) -> str:
        """The reason why no generation is open, if none is."""
        return (self._last.refusal if self._last is not None else None) or STARTING

    @property
    def behind(self) -> bool:
        """Whether a generation is in use while a newer one has not been tried."""
        return bool(self._kept) and self._last is not None and self._last.stamp != current_stamp(self._folder)

    @property
    def lacks_index(self) -> bool:
        """Whether there is no index, and nothing else is missing."""
        return current_stamp(self._folder) is None and (self._last is None or self._last.opened_matcher)

    @property
    def newest(self) -> LocalGallery | None:
        return next(reversed(self._kept), None)

    def find(self, generation_id: str) -> LocalGallery | None:
        """Returns a generation, which stays open while it is held; None if it is not kept."""
        return next((engine for engine in self._kept if engine.generation_id == generation_id), None)

    def opened(self) -> OpenGallery:
        """Returns a function that opens the newest generation. Raises NotReady if none is open."""
        gallery = self.newest
        if gallery is None:
            raise NotReady(self.reason)
        return lambda without: gallery

    def close(self) -> None:
        with self._refreshing:
            self._is_closed = True
            self._kept = ()

    def refresh(self) -> bool:
        """Opens the current generation, unless in use or refused. Returns True if it came into use."""
        before = self.newest
        with self._refreshing:
            while not self._is_closed and self._is_worth_an_attempt(stamp := current_stamp(self._folder)):
                try:
                    self._open(stamp)
                # Whatever is wrong with a new generation, the old one stays in use.
                except Exception as error:
                    # Builds that end meanwhile may delete the generation being opened; then the newest counts.
                    if stamp == current_stamp(self._folder):
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
        self._last = _Attempt(stamp, time.monotonic())

    def _is_worth_an_attempt(self, stamp: Stamp) -> bool:
        if self._last is None or self._last.stamp != stamp:
            return True
        return self._last.refusal is not None and time.monotonic() - self._last.ended >= RETRY_SECONDS

    def _refuse(self, error: Exception, stamp: Stamp) -> None:
        foreseen = isinstance(error, _FORESEEN)
        said = str(error) if foreseen else f"it cannot be opened ({type(error).__name__}); the log has more."
        reason = printable(said)
        # The same refusal is logged only once.
        if self._last is None or (reason, stamp) != (self._last.refusal, self._last.stamp):
            kept = "not ready" if self.newest is None else f"generation {self.newest.generation} stays live"
            unforeseen = error.__cause__ if foreseen else error
            log.warning("%s: %s", kept, reason, exc_info=None if isinstance(unforeseen, _FORESEEN) else unforeseen)
        self._last = _Attempt(stamp, time.monotonic(), reason, isinstance(error, IndexerError))


def check_searches(searcher: Searcher) -> None:
    """Searches with a small drawing, by default and by each method. Raises IndexRefused if that fails."""
    gallery = searcher.gallery
    wanted = min(RESULTS, gallery.photo_count)
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((12, 20, 52, 60), outline="black", width=2)
    drawing = searcher.matcher.preprocessing.drawing(picture)
    for method in ("auto", *methods_of(searcher.matcher, gallery.tokens_kept)):
        query = SearchQuery(k=RESULTS, nprobe=None if method == "auto" else 1, method=method)
        try:
            answer = searcher.search(drawing, query)
            scores = [hit.score for hit in answer.results] + [cluster.score for cluster in answer.clusters]
            if len(answer.results) != wanted or not all(map(math.isfinite, scores)):
                raise ValueError("photos are missing, or their scores are not numbers")
        # Damaged arrays can make numpy or PyTorch fail in any way.
        except Exception as error:
            raise IndexRefused(
                f"generation {gallery.generation} failed its trial: a search by {method} failed "
                f"({type(error).__name__}: {error}); run `sketch-search index verify`."
            ) from error


class Live:
    """Makes engines over the newest generation, whose files close when no longer held. Threads may share it.

    source: the index or the shards. swaps: how many replacements. looked: set once the source was tried.
    """

    def __init__(
        self,
        settings: Settings,
        run: RunJob = decode_inline,
        *,
        matcher: Callable[[], Matcher] | None = None,
        source: LiveIndex | Shards | None = None,
    ) -> None:
        """Opens nothing yet. matcher, source: None for those of the settings."""
        self._settings, self._run = settings, run
        self._matcher = cache(lambda: open_matcher(settings)) if matcher is None else matcher
        self._towers = cache(lambda: TextTowers(self._matcher().device))
        folder = index_path(settings) / THUMBNAILS if source is None else None
        self.source = source or LiveIndex(index_path(settings), self._matcher, settings.gallery)
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES, folder, THUMBNAIL_FILE_BYTES)
        self._refreshing = threading.Lock()
        self._seen: str | None = None
        self._stopped = False
        self.looked = asyncio.Event()
        self.swaps = 0

    def engine(self) -> Engine:
        """Returns an engine over the newest generation. Raises NotReady if none is open, or no shard answers."""
        if self._stopped:
            raise NotReady("The service has been stopped.")
        gallery = self.source.opened()
        return Engine(self._settings, self._matcher(), self._thumbnails, self._run, self._towers(), gallery)

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards of the gallery; none if it is one index on this machine."""
        return self.source.infos

    def has_folders(self) -> bool:
        """Returns False if an index here is in use and none of the folders of its photos is there."""
        return self.source.newest is None or self.source.newest.index.has_folders()

    async def watch(self) -> None:
        """Switches to new generations, until cancelled. An unforeseen error is logged; the next check may succeed."""
        logged = ""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
                logged = ""
            except Exception as error:
                if logged != repr(error):
                    log.exception("looking for a new generation failed; the current one stays")
                logged = repr(error)
            self.looked.set()
            await asyncio.sleep(POLL_SECONDS)

    def refresh(self) -> None:
        """Checks once for new generations, and switches to them. Threads may call it at once."""
        with self._refreshing:
            before = {shard.name for shard in self.shards if shard.answers}
            if self.source.refresh() or self._seen is None:
                with suppress(NotReady):
                    engine = self.engine()
                    gallery = engine.gallery
                    self.swaps += self._seen is not None
                    self._seen = gallery.generation_id
                    message = "generation %s is live, %d photos, searched with %s by %s"
                    model, _ = engine.info()
                    how = model.best_method if engine.system == "default" else f"the {engine.system} system"
                    log.info(message, gallery.generation, gallery.photo_count, model.name, how)
            for shard in self.shards:
                if shard.answers != (shard.name in before):
                    state = "answers" if shard.answers else f"is missing: {shard.reason}"
                    log.warning("shard %s %s", shard.name, state)

    def close(self) -> None:
        self._stopped = True
        self.source.close()

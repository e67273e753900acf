"""The engine that answers now: opened at start or as soon as it can be, and replaced when a new generation is live."""

from __future__ import annotations

import asyncio
import logging
import time

from indexer import IndexerError, live_stamp
from model import Matcher, ModelError
from service.engine import Engine, index_path, open_matcher
from service.errors import NotReady
from service.photos import ThumbnailCache
from service.settings import Settings

# A look costs one stat; a person hardly waits this long for a new index.
POLL_SECONDS = 0.5
# What was refused may be cured without a new generation: a disk mounted again, a checkpoint put in its place.
RETRY_SECONDS = 10.0
THUMBNAIL_BYTES = 32 * 1024 * 1024

# Their messages say all there is to say.
_FORESEEN = (ModelError, IndexerError, OSError)

log = logging.getLogger("sketch_search")


class Live:
    """Holds the one reference to the engine in use. To be used from one event loop.

    Whoever was handed an engine may go on using it after another has taken its place: its files are let go when the
    last reference to it is gone.

    Attributes:
        swaps: how many times a generation has taken another's place.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._index = index_path(settings)
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES)
        self._matcher: Matcher | None = None
        self._engine: Engine | None = None
        self._trouble: str | None = "The service has not been started."
        self._seen: tuple[int, ...] | None = None
        self._tried = float("-inf")
        self.swaps = 0

    def engine(self) -> Engine:
        """The engine.

        Raises:
            NotReady: the checkpoint or the index could not be opened; says why.
        """
        if self._engine is None:
            raise NotReady(self._trouble or "The service has been stopped.")
        return self._engine

    @property
    def refused(self) -> str | None:
        """Why what is live on the disk is not used, while an older generation still answers; None where it is used."""
        return None if self._engine is None else self._trouble

    async def watch(self) -> None:
        """Keep the engine up to date, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Open what is live on the disk, where that is not what is used; where it cannot be, all stays as it was."""
        while True:
            seen = await asyncio.to_thread(live_stamp, self._index)
            waiting = self._trouble is not None and time.monotonic() - self._tried >= RETRY_SECONDS
            if seen == self._seen and not waiting:
                return
            try:
                fresh = await asyncio.to_thread(self._opened)
            # Whatever is wrong with a new generation, the old one has to go on.
            except Exception as error:
                # Builds that end meanwhile delete the generation that was being opened: the newest one counts.
                if seen == await asyncio.to_thread(live_stamp, self._index):
                    self._refuse(error, seen)
                    return
            else:
                self._swap(fresh, seen)

    def _opened(self) -> Engine:
        if self._matcher is None:
            self._matcher = open_matcher(self._settings)
        engine = Engine(self._settings, self._matcher, self._thumbnails)
        try:
            engine.try_out()
        except BaseException:
            engine.close()
            raise
        return engine

    def _swap(self, fresh: Engine, seen: tuple[int, ...] | None) -> None:
        self.swaps += self._engine is not None
        # The one before is closed when nobody uses it any more.
        self._engine = fresh
        self._trouble, self._seen, self._tried = None, seen, time.monotonic()
        log.info("generation %s is live, %d photos", fresh.generation, fresh.photo_count)

    def _refuse(self, error: Exception, seen: tuple[int, ...] | None) -> None:
        foreseen = isinstance(error, _FORESEEN)
        reason = str(error) if foreseen else f"it cannot be opened ({type(error).__name__}); the log has more."
        if (reason, seen) != (self._trouble, self._seen):
            kept = "not ready" if self._engine is None else f"generation {self._engine.generation} stays live"
            puzzle = error.__cause__ if foreseen else error
            log.warning("%s: %s", kept, reason, exc_info=None if isinstance(puzzle, _FORESEEN) else puzzle)
        self._trouble, self._seen, self._tried = reason, seen, time.monotonic()

    def close(self) -> None:
        """Let go of the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
            self._trouble = None

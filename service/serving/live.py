"""The engine that answers now: opened at the start or as soon as it can be, replaced when a new generation is live."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from indexer import IndexerError, live_stamp
from model import Matcher, ModelError
from model.decoding import RunJob, run_here
from service.engine import Engine, index_path, open_matcher
from service.errors import NotReady
from service.photos import ThumbnailCache
from service.schemas import ShardInfo
from service.settings import Settings
from service.towers import Towers

# Each time costs one look at a file's date; a person hardly waits this long for a new index.
POLL_SECONDS = 0.5
# What was refused may be cured without a new generation: a disk mounted again, a checkpoint put in its place.
RETRY_SECONDS = 10.0
THUMBNAIL_BYTES = 32 * 1024 * 1024

# Errors whose message is written for whoever runs the server; of any other the log needs the trace.
_FORESEEN = (ModelError, IndexerError, OSError)

log = logging.getLogger("sketch_search")

# What tells generations on the disk apart (``indexer.live_stamp``); None where there is none.
Stamp = tuple[int, ...] | None


@dataclass(frozen=True)
class _Attempt:
    """One attempt to open the live generation.

    Attributes:
        stamp: what was live on the disk. ended: when it was over, by the monotonic clock, in seconds.
        refusal: why that generation is not used; None where it is.
    """

    stamp: Stamp
    ended: float
    refusal: str | None


class LiveEngine(Protocol):
    """What holds the engine in use. To be used from one event loop.

    Attributes:
        swaps: how many times a generation has taken another's place.
    """

    swaps: int

    def engine(self) -> Engine:
        """The engine in use. Raises NotReady, saying why, where there is none."""

    @property
    def refused(self) -> str | None:
        """Why a newer generation is not used, while an older one still answers; None where there is none such."""

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards of the gallery; none where it is one index on this machine."""

    async def watch(self) -> None:
        """Keep the engine up to date, until cancelled."""

    async def refresh(self) -> None:
        """Bring the engine up to date once."""

    def close(self) -> None:
        """Let go of the engine."""


class Live:
    """Holds the one reference to the engine in use. To be used from one event loop.

    Whoever was handed an engine may go on using it after another has taken its place: an engine's files are closed when
    nothing refers to it any more.

    Attributes:
        swaps: how many times a generation has taken another's place.
    """

    def __init__(self, settings: Settings, run: RunJob = run_here) -> None:
        """``run``: decodes the sketches and photos that are asked about."""
        self._settings = settings
        self._run = run
        self._index = index_path(settings)
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES)
        self._matcher: Matcher | None = None
        self._towers: Towers | None = None
        self._engine: Engine | None = None
        self._last: _Attempt | None = None
        self.swaps = 0

    def engine(self) -> Engine:
        """The engine in use. Raises NotReady, saying why, where there is none."""
        if self._engine is not None:
            return self._engine
        if self._last is None:
            raise NotReady("The service has not been started.")
        raise NotReady(self._last.refusal or "The service has been stopped.")

    @property
    def refused(self) -> str | None:
        """Why what is live on the disk is not used, while an older generation still answers; None where it is used."""
        return None if self._engine is None or self._last is None else self._last.refusal

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """As in ``LiveEngine``: the gallery is one index."""
        return ()

    async def watch(self) -> None:
        """Keep the engine up to date, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Open what is live on the disk, unless it is in use already or was just refused.

        Where it cannot be opened, the engine in use stays.
        """
        while True:
            stamp = await asyncio.to_thread(live_stamp, self._index)
            if not self._is_worth_an_attempt(stamp):
                return
            try:
                fresh = await asyncio.to_thread(self._open)
            # Whatever is wrong with a new generation, the old one has to go on.
            except Exception as error:
                # Builds that end meanwhile delete the generation that was being opened: then the newest one counts.
                if stamp == await asyncio.to_thread(live_stamp, self._index):
                    self._refuse(error, stamp)
                    return
            else:
                self._swap(fresh, stamp)

    def _is_worth_an_attempt(self, stamp: Stamp) -> bool:
        """Whether this generation was never tried, or was refused long enough ago."""
        if self._last is None or self._last.stamp != stamp:
            return True
        return self._last.refusal is not None and time.monotonic() - self._last.ended >= RETRY_SECONDS

    def _open(self) -> Engine:
        if self._matcher is None:
            self._matcher = open_matcher(self._settings)
        if self._towers is None:
            self._towers = Towers(self._matcher.device)
        engine = Engine(self._settings, self._matcher, self._thumbnails, self._run, self._towers)
        try:
            engine.try_out()
        except BaseException:
            engine.close()
            raise
        return engine

    def _swap(self, fresh: Engine, stamp: Stamp) -> None:
        self.swaps += self._engine is not None
        # The one before is closed when nobody uses it any more.
        self._engine = fresh
        self._last = _Attempt(stamp, time.monotonic(), None)
        log.info(
            "generation %s is live, %d photos, searched with %s", fresh.generation, fresh.photo_count, fresh.network
        )

    def _refuse(self, error: Exception, stamp: Stamp) -> None:
        foreseen = isinstance(error, _FORESEEN)
        reason = str(error) if foreseen else f"it cannot be opened ({type(error).__name__}); the log has more."
        # The same refusal again is no news.
        if self._last is None or (reason, stamp) != (self._last.refusal, self._last.stamp):
            kept = "not ready" if self._engine is None else f"generation {self._engine.generation} stays live"
            unforeseen = error.__cause__ if foreseen else error
            log.warning("%s: %s", kept, reason, exc_info=None if isinstance(unforeseen, _FORESEEN) else unforeseen)
        self._last = _Attempt(stamp, time.monotonic(), reason)

    def close(self) -> None:
        """Let go of the engine."""
        if self._engine is not None and self._last is not None:
            self._engine.close()
            self._engine = None
            self._last = _Attempt(self._last.stamp, self._last.ended, None)

"""The engine that answers now: opened at the start or as soon as it can be, replaced when new generations are live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache
from typing import Protocol

from model import Matcher
from model.decoding import RunJob, run_here
from service.engine import Engine, open_matcher
from service.errors import NotReady
from service.gallery import OpenGallery
from service.photos import ThumbnailCache
from service.schemas import ShardInfo
from service.search import Encode
from service.serving.live_index import LiveIndex
from service.settings import Settings, index_path
from service.towers import Towers

# Seconds between two looks at what the shards have; for one index, at a file's date. A person hardly waits this long
# for a new index. A shard that comes back may be left out for this long.
POLL_SECONDS = 0.5
THUMBNAIL_BYTES, THUMBNAIL_FILE_BYTES = 32 * 2**20, 256 * 2**20

log = logging.getLogger("sketch_search")


class Source(Protocol):
    """What a server searches, in the newest generations that can be opened: one index, or shards. Threads may share it.

    Attributes:
        refused: why newer generations on a disk are not used, while older ones answer; None if the newest are used.
    """

    @property
    def refused(self) -> str | None: ...

    def refresh(self) -> bool:
        """Looks for newer generations. Returns whether there are others to be searched than before."""

    def opened(self) -> OpenGallery | None:
        """Returns what opens the generations that are searched now; None if there are none."""

    def check_ready(self) -> None:
        """Raises NotReady, saying why, if nothing can be searched."""

    def infos(self) -> tuple[ShardInfo, ...]:
        """Describes the shards; there are none of one index on this machine."""

    def close(self) -> None:
        """Closes the files."""


class Live:
    """Holds the one reference to the engine in use. To be used from one event loop.

    Whoever was handed an engine may go on using it after another has taken its place: an engine's files are closed when
    nothing refers to it any more.

    Attributes:
        swaps: how many times generations have taken others' places.
    """

    def __init__(
        self,
        settings: Settings,
        run: RunJob = run_here,
        *,
        matcher: Callable[[], Matcher] | None = None,
        source: Source | None = None,
        encode: Encode | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            run: decodes the sketches and photos that are asked about.
            matcher: opens the checkpoint; None for the one that the settings name.
            source: what is searched; None for the index that the settings name.
            encode: encodes sketches and photos of queries; None for the matcher.
        """
        self._settings, self._run, self._encode = settings, run, encode
        self._matcher = cache(lambda: open_matcher(settings)) if matcher is None else matcher
        small = None
        if source is None:
            source = LiveIndex(index_path(settings), self._matcher, settings.gallery)
            small = index_path(settings) / "thumbnails"
        self._source = source
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES, small, THUMBNAIL_FILE_BYTES)
        self._towers: Towers | None = None
        self._engine: Engine | None = None
        self._stopped = False
        self.swaps = 0

    def engine(self) -> Engine:
        """Returns the engine in use. Raises NotReady, saying why, if there is none, or no shard answers."""
        if self._stopped:
            raise NotReady("The service has been stopped.")
        self._source.check_ready()
        if self._engine is None:
            raise NotReady("The service has not been started.")
        return self._engine

    @property
    def refused(self) -> str | None:
        """Why the newest generation was rejected while an older one answers, or None."""
        return self._source.refused

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards of the gallery; none if it is one index on this machine."""
        return self._source.infos()

    async def watch(self) -> None:
        """Keeps the engine up to date, until cancelled. An unforeseen error is logged; the next look may succeed."""
        told = ""
        while True:
            try:
                await self.refresh()
                told = ""
            except Exception as error:
                if told != repr(error):
                    log.exception("looking for a new generation failed; what is live stays")
                told = repr(error)
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Looks once for new generations, and takes them into use."""
        before = {shard.name for shard in self.shards if shard.answers}
        changed = await asyncio.to_thread(self._source.refresh)
        gallery = self._source.opened()
        if gallery is not None and (changed or self._engine is None):
            fresh = await asyncio.to_thread(self._open, gallery)
            self.swaps += self._engine is not None
            # The one before is closed when nobody uses it any more.
            self._engine = fresh
            log.info(
                "generation %s is live, %d photos, searched with %s", fresh.generation, fresh.photo_count, fresh.network
            )
        for shard in self.shards:
            if shard.answers != (shard.name in before):
                log.warning("shard %s %s", shard.name, "answers" if shard.answers else f"is missing: {shard.reason}")

    def _open(self, gallery: OpenGallery) -> Engine:
        matcher = self._matcher()
        if self._towers is None:
            self._towers = Towers(matcher.device)
        return Engine(self._settings, matcher, self._thumbnails, self._run, self._towers, gallery, self._encode)

    def close(self) -> None:
        """Closes what is open."""
        self._engine = None
        self._stopped = True
        self._source.close()

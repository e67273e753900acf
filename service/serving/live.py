"""Holds the engine that answers now: opened as soon as it can be, and replaced when new generations are live."""

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
from service.serving.live_index import STARTING, LiveIndex
from service.settings import Settings, index_path
from service.towers import TextTowers

# Seconds between two looks for new generations, which of one index are a look at a file's date. A shard that comes back
# may be left out for this long.
POLL_SECONDS = 0.5
THUMBNAIL_BYTES, THUMBNAIL_FILE_BYTES = 32 * 2**20, 256 * 2**20

log = logging.getLogger("sketch_search")


class Source(Protocol):
    """Opens what a server searches in its newest generations: one index, or shards. Threads may share it.

    Attributes:
        refused: why newer generations are not used while older ones answer, or None.
    """

    @property
    def refused(self) -> str | None: ...

    def refresh(self) -> bool:
        """Looks for newer generations. Returns whether other ones are to be searched now."""

    def opened(self) -> OpenGallery | None:
        """Returns what opens the generations that are searched now, or None."""

    def check_ready(self) -> None:
        """Raises NotReady if nothing can be searched."""

    def infos(self) -> tuple[ShardInfo, ...]:
        """Describes the shards; one index has none."""

    def close(self) -> None:
        """Closes the files."""


class Live:
    """Holds the one reference to the engine in use. It is used from one event loop.

    An engine stays usable after another has replaced it: its files are closed when nothing refers to it any more.
    ``swaps`` counts the replacements; ``looked`` is set once it has opened what is searched, or cannot.
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
            run: decodes sketches and photos.
            matcher, source: the checkpoint, and what is searched; None for those that the settings name.
            encode: encodes the pictures of queries; None for the matcher.
        """
        self._settings, self._run, self._encode = settings, run, encode
        self._matcher = cache(lambda: open_matcher(settings)) if matcher is None else matcher
        small = None
        if source is None:
            source = LiveIndex(index_path(settings), self._matcher, settings.gallery)
            small = index_path(settings) / "thumbnails"
        self._source = source
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES, small, THUMBNAIL_FILE_BYTES)
        self._towers: TextTowers | None = None
        self._engine: Engine | None = None
        self._stopped = False
        self.looked = asyncio.Event()
        self.swaps = 0

    def engine(self) -> Engine:
        """Returns the engine in use. Raises NotReady if there is none, or no shard answers."""
        if self._stopped:
            raise NotReady("The service has been stopped.")
        self._source.check_ready()
        if self._engine is None:
            raise NotReady(STARTING)
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
        logged = ""
        while True:
            try:
                await self.refresh()
                logged = ""
            except Exception as error:
                if logged != repr(error):
                    log.exception("looking for a new generation failed; what is live stays")
                logged = repr(error)
            self.looked.set()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Looks once for new generations, and starts using them."""
        before = {shard.name for shard in self.shards if shard.answers}
        changed = await asyncio.to_thread(self._source.refresh)
        gallery = self._source.opened()
        if gallery is not None and (changed or self._engine is None):
            fresh = await asyncio.to_thread(self._open, gallery)
            self.swaps += self._engine is not None
            self._engine = fresh
            found = fresh.gallery
            log.info(
                "generation %s is live, %d photos, searched with %s", found.generation, found.photo_count, fresh.network
            )
        for shard in self.shards:
            if shard.answers != (shard.name in before):
                log.warning("shard %s %s", shard.name, "answers" if shard.answers else f"is missing: {shard.reason}")

    def _open(self, gallery: OpenGallery) -> Engine:
        matcher = self._matcher()
        if self._towers is None:
            self._towers = TextTowers(matcher.device)
        return Engine(self._settings, matcher, self._thumbnails, self._run, self._towers, gallery, self._encode)

    def close(self) -> None:
        self._engine = None
        self._stopped = True
        self._source.close()

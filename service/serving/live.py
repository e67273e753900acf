"""Gives the engine that answers now: opened as soon as it can be, and replaced when new generations are live."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Protocol

from indexer.store.location import THUMBNAILS
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
from service.towers import TextTowers

# Seconds between two looks for new generations, which of one index are a look at a file's date. A shard that comes back
# may be left out for this long.
POLL_SECONDS = 0.5
THUMBNAIL_BYTES, THUMBNAIL_FILE_BYTES = 32 * 2**20, 256 * 2**20

log = logging.getLogger("sketch_search")


class Source(Protocol):
    """Opens what a server searches in its newest generations: one index, or shards. Threads may share it."""

    @property
    def refused(self) -> str | None:
        """Why newer generations are not used while older ones answer, or None."""

    def refresh(self) -> bool:
        """Looks for newer generations. Returns whether other ones are to be searched now."""

    def opened(self) -> OpenGallery:
        """Returns what opens the generations that are searched now. Raises NotReady."""

    def infos(self) -> tuple[ShardInfo, ...]:
        """Describes the shards; one index has none."""

    def close(self) -> None:
        """Closes the files as soon as nobody reads them."""


class Live:
    """Makes engines over the newest generation. Threads may share it.

    An engine stays usable after another generation has come into use: its files are closed when it is no longer held.
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
        """Opens nothing yet. matcher, source: None for those that the settings name. encode: None for the matcher's."""
        self._settings, self._run, self._encode = settings, run, encode
        self._matcher = cache(lambda: open_matcher(settings)) if matcher is None else matcher
        self._towers = cache(lambda: TextTowers(self._matcher().device))
        small = None
        if source is None:
            source = LiveIndex(index_path(settings), self._matcher, settings.gallery)
            small = index_path(settings) / THUMBNAILS
        self._source = source
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES, small, THUMBNAIL_FILE_BYTES)
        self._seen: str | None = None
        self._stopped = False
        self.looked = asyncio.Event()
        self.swaps = 0

    def engine(self) -> Engine:
        """Returns an engine over the newest generation. Raises NotReady if none is open, or no shard answers."""
        if self._stopped:
            raise NotReady("The service has been stopped.")
        gallery = self._source.opened()
        return Engine(
            self._settings, self._matcher(), self._thumbnails, self._run, self._towers(), gallery, self._encode
        )

    @property
    def refused(self) -> str | None:
        """Why the newest generation was rejected while an older one answers, or None."""
        return self._source.refused

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards of the gallery; none if it is one index on this machine."""
        return self._source.infos()

    async def watch(self) -> None:
        """Keeps up with what is built, until cancelled. An unforeseen error is logged; the next look may succeed."""
        logged = ""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
                logged = ""
            except Exception as error:
                if logged != repr(error):
                    log.exception("looking for a new generation failed; what is live stays")
                logged = repr(error)
            self.looked.set()
            await asyncio.sleep(POLL_SECONDS)

    def refresh(self) -> None:
        """Looks once for new generations, and starts using them."""
        before = {shard.name for shard in self.shards if shard.answers}
        if self._source.refresh() or self._seen is None:
            with suppress(NotReady):
                engine = self.engine()
                found = engine.gallery
                self.swaps += self._seen is not None
                self._seen = found.generation_id
                log.info(
                    "generation %s is live, %d photos, searched with %s",
                    found.generation,
                    found.photo_count,
                    engine.network,
                )
        for shard in self.shards:
            if shard.answers != (shard.name in before):
                log.warning("shard %s %s", shard.name, "answers" if shard.answers else f"is missing: {shard.reason}")

    def close(self) -> None:
        self._stopped = True
        self._source.close()

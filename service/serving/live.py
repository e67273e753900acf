"""The engine that answers now: opened at the start or as soon as it can be, replaced when new generations are live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache

from model import Matcher
from model.decoding import RunJob, run_here
from service.engine import Engine, one_index, open_matcher
from service.errors import NotReady
from service.photos import ThumbnailCache
from service.schemas import ShardInfo
from service.search import Encode
from service.settings import Settings
from service.sharding import Shards
from service.towers import Towers

# Seconds between two looks at what the shards have; for one index, at a file's date. A person hardly waits this long
# for a new index. A shard that comes back may be left out for this long.
POLL_SECONDS = 0.5
THUMBNAIL_BYTES = 32 * 1024 * 1024

log = logging.getLogger("sketch_search")


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
        shards: Shards | None = None,
        encode: Encode | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            run: decodes the sketches and photos that are asked about.
            matcher: opens the checkpoint; None for the one that the settings name.
            shards: what is searched; None for the index that the settings name, as one shard.
            encode: encodes sketches and photos of queries; None for the matcher.
        """
        self._settings, self._run, self._encode = settings, run, encode
        self._matcher = cache(lambda: open_matcher(settings)) if matcher is None else matcher
        self._shards = one_index(settings, self._matcher) if shards is None else shards
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES)
        self._towers: Towers | None = None
        self._engine: Engine | None = None
        self._stopped = False
        self.swaps = 0

    def engine(self) -> Engine:
        """Returns the engine in use. Raises NotReady, saying why, where there is none, or no shard answers."""
        if self._stopped:
            raise NotReady("The service has been stopped.")
        self._shards.check_any()
        if self._engine is None:
            raise NotReady("The service has not been started.")
        return self._engine

    @property
    def refused(self) -> str | None:
        """Why what is live on a disk is not used, while an older generation still answers; None where it is used."""
        return self._shards.refused

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards of the gallery; none where it is one index on this machine."""
        return self._shards.infos()

    async def watch(self) -> None:
        """Keeps the engine up to date, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Asks the shards once what they have, and takes it into use."""
        before = {shard.name for shard in self.shards if shard.answers}
        changed = await asyncio.to_thread(self._shards.refresh)
        known = any(one is not None for one in self._shards.generations.overviews)
        if changed or (self._engine is None and known):
            fresh = await asyncio.to_thread(self._open)
            self.swaps += self._engine is not None
            # The one before is closed when nobody uses it any more.
            self._engine = fresh
            log.info(
                "generation %s is live, %d photos, searched with %s", fresh.generation, fresh.photo_count, fresh.network
            )
        for shard in self.shards:
            if shard.answers != (shard.name in before):
                log.warning("shard %s %s", shard.name, "answers" if shard.answers else f"is missing: {shard.reason}")

    def _open(self) -> Engine:
        """Returns the engine over the generations that are known now."""
        matcher = self._matcher()
        if self._towers is None:
            self._towers = Towers(matcher.device)
        return Engine(
            self._settings,
            matcher,
            self._thumbnails,
            self._run,
            self._towers,
            self._shards,
            self._encode,
        )

    def close(self) -> None:
        """Lets go of the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._stopped = True

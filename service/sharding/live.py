"""The engine of a gallery in shards that answers now; it follows the generations of the shards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from model import Matcher
from model.decoding import RunJob, run_here
from service.engine import Engine
from service.errors import NotReady
from service.photos import ThumbnailCache
from service.schemas import ShardInfo
from service.search import Encode
from service.serving import THUMBNAIL_BYTES
from service.settings import Settings
from service.sharding.gallery import ShardedGallery
from service.sharding.shards import Generations, Shards
from service.towers import Towers

# How often shards are asked what they have: so long a shard that comes back may be left out.
POLL_SECONDS = 0.5

log = logging.getLogger("sketch_search")


class ShardGalleries:
    """The gallery of an engine that is in shards: the generations that they had when the engine was made."""

    def __init__(self, shards: Shards, encode: Encode) -> None:
        """encode: encodes sketches and photos of queries."""
        self._shards = shards
        self._generations: Generations = shards.generations
        self.encode: Encode | None = encode

    def gallery(self, without: frozenset[str] = frozenset()) -> ShardedGallery:
        """The photos of the shards that answer. Raises NotReady where none does."""
        never = {number for number, one in enumerate(self._generations.overviews) if one is None}
        missing = self._shards.missing | never | self._shards.numbers(without)
        if len(missing) == len(self._shards.links):
            raise NotReady("No shard of the gallery answers now. Try again in a moment.")
        asked = self._shards.round(self._generations, missing)
        return ShardedGallery(self._generations.layout(missing), asked, self._shards.names(missing))

    def lose(self, names: Iterable[str]) -> None:
        """Takes note that shards with these names did not answer."""
        self._shards.lose(names)

    def close(self) -> None:
        """Nothing is open here."""


class ShardedLive:
    """As ``LiveEngine``: holds the engine over the generations that the shards have now.

    Attributes:
        swaps: how many times generations have taken others' places.
    """

    def __init__(
        self,
        settings: Settings,
        matcher: Matcher,
        shards: Shards,
        encode: Encode,
        run: RunJob = run_here,
    ) -> None:
        """
        Args:
            matcher: the checkpoint, as it is loaded.
            shards: what is searched. encode: what encodes sketches and photos of queries.
            run: decodes the sketches and photos that are asked about.
        """
        self._settings, self._matcher, self._encode, self._run = settings, matcher, encode, run
        self._shards = shards
        self._thumbnails, self._towers = ThumbnailCache(THUMBNAIL_BYTES), Towers(matcher.device)
        self._engine: Engine | None = None
        self.swaps = 0

    def engine(self) -> Engine:
        """The engine that answers now: there is one as soon as a shard answers, and as long as one does."""
        if self._engine is None or len(self._shards.missing) == len(self._shards.links):
            reasons = "; ".join(f"{shard.name}: {shard.reason}" for shard in self._shards.infos())
            raise NotReady(f"No shard of the gallery answers ({reasons}).")
        return self._engine

    @property
    def refused(self) -> str | None:
        """Why shards do not use their newest generation; None where all do."""
        return self._shards.refused

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards, as they are told to users."""
        return self._shards.infos()

    async def watch(self) -> None:
        """Looks for other generations for as long as the service runs."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Asks the shards once what they have, and takes it into use."""
        before = {shard.name for shard in self.shards if shard.answers}
        if await asyncio.to_thread(self._shards.refresh) or self._engine is None:
            await self._swap()
        for shard in self.shards:
            if shard.answers != (shard.name in before):
                log.warning("shard %s %s", shard.name, "answers" if shard.answers else f"is missing: {shard.reason}")

    async def _swap(self) -> None:
        fresh = await asyncio.to_thread(self._open)
        if fresh is not None:
            self.swaps += self._engine is not None
            self._engine = fresh
            log.info("generation %s is live, %d photos", fresh.generation, fresh.photo_count)

    def _open(self) -> Engine | None:
        """The engine over what is known now; None where no shard ever answered."""
        if all(one is None for one in self._shards.generations.overviews):
            return None
        galleries = ShardGalleries(self._shards, self._encode)
        return Engine(self._settings, self._matcher, self._thumbnails, self._run, self._towers, galleries)

    def close(self) -> None:
        """Let go of the engine."""
        self._engine = None

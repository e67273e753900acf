"""The engine of a gallery in several shards: what one shard does not answer, is answered without it, and said so."""

from __future__ import annotations

from collections.abc import Callable

from model import Matcher
from model.decoding import RunJob, run_here
from service.engine import GalleryEngine, PreparedSketch, search_defaults
from service.errors import NotReady
from service.photos import ThumbnailCache
from service.schemas import ExplainParams, ExplainResponse, SearchQuery, SearchResponse
from service.search import Encode, GallerySearcher
from service.settings import Settings
from service.sharding.errors import ShardsLost
from service.sharding.gallery import ShardedGallery
from service.sharding.shards import Generations, Shards
from service.towers import ClipVectors, Towers


class ShardedEngine(GalleryEngine):
    """One checkpoint and the generations of several shards, the same ones for as long as it is used."""

    def __init__(
        self,
        settings: Settings,
        matcher: Matcher,
        shards: Shards,
        encode: Encode,
        thumbnails: ThumbnailCache | None = None,
        run: RunJob = run_here,
        towers: Towers | None = None,
    ) -> None:
        """As ``GalleryEngine``.

        Args:
            matcher: the checkpoint that made the shards.
            shards: what is searched, with the generations that they have now.
            encode: what encodes sketches and photos of queries.
        """
        super().__init__(settings, matcher, thumbnails, run, towers)
        self._shards = shards
        self._encode = encode
        self._generations: Generations = shards.generations

    def search(
        self, sketch: PreparedSketch | None, query: SearchQuery, clip: ClipVectors | None = None
    ) -> SearchResponse:
        """As ``GalleryEngine.search``. Where a shard is lost meanwhile, it begins anew without that shard.

        Raises ShardsLost where none answers, or where the query names a photo that may be in one that does not.
        """
        self._check_page_size(query.k)
        if clip is None:
            clip = self.by_clip(sketch, query)
        missing = self._missing
        gone: frozenset[int] = frozenset()
        while True:
            try:
                answer = self._searched(self._searcher(missing), sketch, query, clip)
            except ShardsLost as lost:
                others = self._shards.lose(lost.names) - missing
                if not others:
                    raise
                gone |= others
                # Others that were missing when the search began may be back.
                missing = self._missing | gone
            else:
                names = self._shards.names(missing)
                return answer.model_copy(update={"complete": not names, "missing_shards": names})

    def explain(
        self, sketch: PreparedSketch | None, params: ExplainParams, gone: Callable[[], bool] = lambda: False
    ) -> ExplainResponse:
        """As ``GalleryEngine.explain``. Raises ShardsLost where a shard is missing: ranks among all would be wrong."""
        if missing := self._missing:
            raise ShardsLost(self._shards.names(missing))
        return super().explain(sketch, params, gone)

    def close(self) -> None:
        """Nothing is open here."""

    @property
    def _missing(self) -> frozenset[int]:
        """The numbers of shards that do not answer, or that these generations are without."""
        return self._shards.missing | {n for n, one in enumerate(self._generations.overviews) if one is None}

    @property
    def _index(self) -> ShardedGallery:
        return self._gallery(self._missing)

    def _searcher_now(self) -> GallerySearcher:
        return self._searcher(self._missing)

    def _searcher(self, missing: frozenset[int]) -> GallerySearcher:
        defaults = search_defaults(self._settings)
        return GallerySearcher(self._gallery(missing), self._matcher, defaults, self._encode)

    def _gallery(self, missing: frozenset[int]) -> ShardedGallery:
        if len(missing) == len(self._shards.links):
            raise NotReady("No shard of the gallery answers now. Try again in a moment.")
        layout = self._generations.layout(missing)
        return ShardedGallery(layout, self._shards.round(self._generations, missing))

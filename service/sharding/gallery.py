"""A gallery whose photos are in several shards, for one search.

Every method is one round: all shards that it concerns are asked at the same time. A search by a sketch takes three:
each shard's best photos by [Ret], with their [Ret]; the scores of the best of all, taken where their tokens are; and
the paths of what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import BadInvocation, EmbedderEntry, PhotoEntry, PhotoFilter, UnknownPhoto
from model import Matcher, Tokens
from model.ranking import ScoredBy
from service.errors import BadSearch
from service.search import FOUND_AT_LEAST, GalleryRows, Mask, QueryParts, Rows, Scores, Word, WordLead
from service.sharding.layout import Layout
from service.sharding.links import Round
from service.sharding.question import Question
from service.sharding.questions import (
    CentroidScores,
    Entries,
    FileOf,
    NearPhotos,
    NearSketch,
    NearWord,
    PartOf,
    Passing,
    RowsOfIds,
    ScoresOf,
    SentParts,
    SketchLead,
    TokensOf,
    WordScoresOf,
)
from service.sharding.ret import ShardedRet
from service.sharding.sent import SentMask
from service.towers import TextVector

T = TypeVar("T")


class ShardedGallery(GalleryRows):
    """The photos of the shards that are there, as ``Gallery`` and ``SearchedIndex``. For one search, in one thread.

    Where few photos are in all of them, it ranks as one small index of all these photos does, and else as a large one.

    Attributes:
        gallery_ret: [Ret] of the photos. chunk, grid: as of ``GalleryScorer``.
        is_large: whether only the photos near a query have a place in its ranking.
    """

    def __init__(self, layout: Layout, ask: Round, matcher: Matcher, large_from: int = FOUND_AT_LEAST + 1) -> None:
        """
        Args:
            layout: the photos. ask: the way to the shards that have them.
            matcher: the checkpoint that made their tokens.
            large_from: photos from which on it is large.
        """
        super().__init__(layout.ids, layout.cluster_sizes, torch.from_numpy(layout.centroid_ret), matcher)
        self._layout, self._ask = layout, ask
        self.chunk, self.grid = matcher.chunk, matcher.config.grid
        self.gallery_ret = ShardedRet(layout, ask, matcher)
        self.is_large = self.photo_count >= large_from

    # What a search asks of the photos.

    @property
    def index(self) -> ShardedGallery:
        """What else is known of the photos."""
        return self

    def rows_of_ids(self, ids: Iterable[int]) -> Rows:
        """As in ``Gallery``. A photo that no shard has may be in one that is missing: then ShardsLost is raised."""
        wanted = tuple(ids)
        if not wanted:
            return np.empty(0, np.int64)
        found = np.full(len(wanted), -1, np.int64)
        for shard, rows in self._ask_all(RowsOfIds(wanted)).items():
            found[rows >= 0] = rows[rows >= 0] + self._layout.rows(shard).start
        if (found < 0).any():
            self._ask.check_complete()
            raise UnknownPhoto(f"no photo has the id {wanted[int(np.argmin(found))]}.")
        return found

    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """As in ``Gallery``."""
        split = list(self._layout.by_shard(rows))
        answers = self._ask.ask({shard: Entries(there) for shard, _, there in split})
        found: dict[int, PhotoEntry] = {}
        for shard, places, _ in split:
            first = self._layout.clusters(shard).start
            for place, entry in zip(places.tolist(), answers[shard], strict=True):
                found[place] = replace(entry, cluster=entry.cluster + first)
        return tuple(found[place] for place in range(len(rows)))

    def passing(self, wanted: PhotoFilter) -> Mask:
        """As in ``Gallery``."""
        return self.gallery_ret.joined(self._ask_all(Passing(wanted)))

    def near_sketch(
        self, parts: QueryParts, method: ScoredBy, count: int, passing: Mask | None, lead: WordLead | None = None
    ) -> Rows:
        """As in ``Gallery``: the best ``count`` of each shard, by exactly what they are wanted by."""
        sent = SentParts.of(parts, ret_only=True)
        by_ret = None if method == "clip" else parts.sketch
        if lead is None or method == "clip":
            near = self._ask.ask({shard: NearSketch(sent, method, count, some) for shard, some in self._sent(passing)})
            return self.gallery_ret.keep(near, by_ret)
        # What a word leads is compared with the best photo by [Ret], which may be in any shard.
        best = self._ask.ask({shard: NearSketch(sent, method, 1, some) for shard, some in self._sent(passing)})
        firsts = self.gallery_ret.keep(best, by_ret)
        highest = max((float(one.scores.max()) for one in best.values() if len(one.scores)), default=-np.inf)
        led = SketchLead(lead, highest)
        near = self._ask.ask({shard: NearSketch(sent, method, count, some, led) for shard, some in self._sent(passing)})
        return np.union1d(firsts, self.gallery_ret.keep(near, by_ret))

    def near_photos(self, ret: torch.Tensor, count: int, passing: Mask | None) -> Rows:
        """As in ``Gallery``."""
        examples, mean = ret.cpu().float().numpy(), self._layout.mean
        near = {shard: NearPhotos(examples, mean, count, some) for shard, some in self._sent(passing)}
        return self.gallery_ret.keep(self._ask.ask(near))

    def near_word(self, word: Word, count: int, passing: Mask | None) -> Rows:
        """As in ``Gallery``."""
        near = {shard: NearWord(word, count, some) for shard, some in self._sent(passing)}
        return self.gallery_ret.keep(self._ask.ask(near))

    def ret(self, rows: Rows) -> torch.Tensor:
        """As in ``Gallery``."""
        return self.gallery_ret.of(rows)

    def centroid_scores(self, parts: QueryParts, method: ScoredBy) -> Scores:
        """As in ``Gallery``; 0 for clusters of shards that are missing, which have no photos here."""
        if method == "ret":
            if not len(self.cluster_sizes):
                return np.empty(0, np.float32)
            return self._matcher.scores(parts.sketch, self._centroid_ret, "ret")[0].numpy()
        scores = np.zeros(len(self.cluster_sizes), np.float32)
        for shard, of_shard in self._ask_all(CentroidScores(SentParts.of(parts), method)).items():
            scores[self._layout.clusters(shard)] = of_shard
        return scores

    def ret_scores(self, parts: QueryParts, rows: Rows | None = None) -> Scores:
        """As in ``Gallery``."""
        return self.gallery_ret.scores(parts.sketch, self._all_rows() if rows is None else rows)

    def word_scores(self, word: int, rows: Rows | None = None) -> Scores:
        """As in ``Gallery``."""
        return self.gallery_ret.word_scores(word, self._all_rows() if rows is None else rows)

    def clip_scores(self, vector: NDArray[np.float32], rows: Rows | None = None) -> Scores:
        """As in ``Gallery``."""
        wanted = self._all_rows() if rows is None else rows
        return self._scores(wanted, lambda there: WordScoresOf(TextVector(vector), there))

    def scores(self, parts: QueryParts, rows: Rows, method: ScoredBy) -> Scores:
        """As in ``Gallery``: taken where the tokens are."""
        if method == "ret":
            return self.ret_scores(parts, rows)
        sent = SentParts.of(parts)
        return self._scores(rows, lambda there: ScoresOf(sent, there, method))

    def tokens(self, rows: Rows) -> Tokens:
        """As in ``Gallery``. Only near duplicates are compared by them, at most 1,000 photos of a search."""
        split = list(self._layout.by_shard(rows))
        answers = self._ask.ask({shard: TokensOf(there) for shard, _, there in split})
        parts = Tokens.cat([answers[shard].tokens(torch.device("cpu")) for shard, _, _ in split])
        order = np.concatenate([places for _, places, _ in split])
        return parts[torch.from_numpy(np.argsort(order))]

    # What else the service asks of an index.

    @property
    def generation(self) -> str:
        """The names of the shards' generations, joined by '+'; one name where all are the same."""
        names = ["-" if one is None else one.generation for one in self._layout.overviews]
        return names[0] if len(set(names)) == 1 else "+".join(names)

    @property
    def made(self) -> str:
        """As in ``SearchedIndex``."""
        return "+".join("-" if one is None else one.made for one in self._layout.overviews)

    @property
    def cluster_count(self) -> int:
        """Of all shards."""
        return len(self.cluster_sizes)

    @property
    def embedder(self) -> EmbedderEntry:
        """As in ``SearchedIndex``."""
        return self._layout.embedder

    @property
    def tokens_kept(self) -> int:
        """As in ``SearchedIndex``."""
        return self._layout.tokens_kept

    def photo(self, photo: int) -> PhotoEntry:
        """As in ``SearchedIndex``."""
        return self.entries(self.rows_of_ids([photo]))[0]

    def photos(self, photos: Iterable[int]) -> tuple[PhotoEntry, ...]:
        """As in ``SearchedIndex``."""
        return self.entries(self.rows_of_ids(photos))

    def photo_at(self, target: str) -> PhotoEntry:
        """Nobody asks for it: paths are named on the command line, which opens one index."""
        raise BadInvocation(f"photos of several shards are named by their ids, not by paths such as {target}.")

    def open_photo(self, photo: int) -> bytes:
        """As in ``SearchedIndex``: read on a machine of the shard."""
        ((shard, _, _),) = self._layout.by_shard(self.rows_of_ids([photo]))
        return self._ask.ask({shard: FileOf(photo)})[shard]

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Some of the same bytes, so that no more of them has to be held here."""
        ((shard, _, _),) = self._layout.by_shard(self.rows_of_ids([photo]))
        return self._ask.ask({shard: PartOf(photo, size, start, count)})[shard]

    def cluster_ids(self, number: int) -> NDArray[np.int64]:
        """As in ``SearchedIndex``. Raises ShardsLost where its shard is missing."""
        if not 0 <= number < self.cluster_count:
            raise IndexError(f"there are {self.cluster_count} clusters, and no number {number}")
        if self._layout.shard_of_cluster(number) not in self._layout.asked:
            self._ask.check_complete()
        return self.ids[self.rows_of(number)]

    def photo_tokens(self, places: Rows) -> Tokens:
        """Raises BadSearch: to read the tokens of all photos, all of them would have to go between machines."""
        raise BadSearch("A sketch is rebuilt from the photos of one index only, and here there are several shards.")

    def close(self) -> None:
        """Nothing is open here."""

    def _ask_all(self, question: Question[T]) -> dict[int, T]:
        return self._ask.ask(dict.fromkeys(self._layout.asked, question))

    def _sent(self, passing: Mask | None) -> Iterable[tuple[int, SentMask | None]]:
        """Each shard with which of its photos may be found; without those that have none."""
        for shard in self._layout.asked:
            if passing is None:
                yield shard, None
            elif (some := passing[self._layout.rows(shard)]).any():
                yield shard, SentMask.of(some)

    def _scores(self, rows: Rows, question: Callable[[Rows], Question[Scores]]) -> Scores:
        scores = np.empty(len(rows), np.float32)
        split = list(self._layout.by_shard(rows))
        answers = self._ask.ask({shard: question(there) for shard, _, there in split})
        for shard, places, _ in split:
            scores[places] = answers[shard]
        return scores

    def _all_rows(self) -> Rows:
        return np.arange(self.photo_count)

"""[Ret] of photos that are in several shards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from model import Matcher, Tokens
from model.ranking import Likeness
from service.search import Mask, QueryParts, Rows, Scores
from service.sharding.layout import Layout
from service.sharding.links import Round
from service.sharding.questions import Found, Leaving, LikenessOfAll, RetOf, ScoresOf, SentParts, WordScoresOf
from service.sharding.sent import SentMask, to_tensor


class ShardedRet:
    """As ``GalleryRet``: what one search asks about [Ret]. What has come once is kept to the end of the search.

    Attributes:
        mean: (d,) float32, of all photos that are there.
    """

    def __init__(self, layout: Layout, ask: Round, matcher: Matcher) -> None:
        self._layout, self._ask, self._matcher = layout, ask, matcher
        self.mean = to_tensor(layout.mean, matcher.device)
        self._rows, self._ret = np.empty(0, np.int64), np.empty((0, len(layout.mean)), np.float32)
        self._sketch: Tokens | None = None
        self._scored, self._scores = np.empty(0, np.int64), np.empty(0, np.float32)

    def keep(self, found: Mapping[int, Found], sketch: Tokens | None = None) -> Rows:
        """Keep what shards have found; ``sketch``: by which they were scored by [Ret]. Returns the rows, ascending."""
        first = {shard: self._layout.rows(shard).start for shard in found}
        rows = np.concatenate([np.empty(0, np.int64), *(one.rows + first[shard] for shard, one in found.items())])
        self._add(rows, np.concatenate([self._ret[:0], *(one.ret for one in found.values())]))
        if sketch is not None:
            scores = np.concatenate([np.empty(0, np.float32), *(one.scores for one in found.values())])
            self._add_scores(sketch, rows, scores)
        return np.sort(rows)

    def of(self, rows: Rows) -> torch.Tensor:
        """As in ``GalleryRet``."""
        return to_tensor(self._of(rows), self._matcher.device)

    def scores(self, sketch: Tokens, rows: Rows) -> Scores:
        """As in ``GalleryRet``."""
        if sketch is not self._sketch:
            self._add_scores(sketch, np.empty(0, np.int64), np.empty(0, np.float32))
        unknown = np.setdiff1d(rows, self._scored)
        if len(unknown):
            parts = SentParts.of(QueryParts(sketch), ret_only=True)
            scores = np.empty(len(unknown), np.float32)
            split = list(self._layout.by_shard(unknown))
            answers = self._ask.ask({shard: ScoresOf(parts, there, "ret") for shard, _, there in split})
            for shard, places, _ in split:
                scores[places] = answers[shard]
            self._add_scores(sketch, unknown, scores)
        return self._scores[np.searchsorted(self._scored, rows)]

    def word_scores(self, word: int, rows: Rows) -> Scores:
        """As in ``GalleryRet``."""
        scores = np.empty(len(rows), np.float32)
        split = list(self._layout.by_shard(rows))
        answers = self._ask.ask({shard: WordScoresOf(word, there) for shard, _, there in split})
        for shard, places, _ in split:
            scores[places] = answers[shard]
        return scores

    def likeness(self, examples: Rows, rows: Rows, others: torch.Tensor | None = None) -> Scores:
        """As in ``GalleryRet``."""
        wanted = self._examples(examples, others)
        if not len(wanted):
            return np.full(len(rows), -1, np.float32)
        if len(rows) == len(self._layout.ids):
            question = LikenessOfAll(wanted, self._layout.mean)
            answers = self._ask.ask(dict.fromkeys(self._layout.asked, question))
            every = np.concatenate([np.empty(0, np.float32), *(answers[shard] for shard in self._layout.asked)])
            return every[rows]
        of_rows = Likeness(self.of(rows), self.mean)
        others = to_tensor(wanted, self._matcher.device)
        likeness: Scores = of_rows.to(torch.empty(0, dtype=torch.int64), others=others).numpy()
        return likeness

    def leaving(self, unliked: Rows, liked: Rows, others: torch.Tensor | None = None) -> Mask:
        """As in ``GalleryRet``."""
        question = Leaving(self._of(unliked), self._examples(liked, others), self._layout.mean)
        gone = self.joined(self._ask.ask(dict.fromkeys(self._layout.asked, question)))
        gone[unliked], gone[liked] = True, False
        return gone

    def joined(self, masks: Mapping[int, SentMask]) -> Mask:
        """(p,): the masks of all shards that are asked, as one."""
        return np.concatenate([np.empty(0, np.bool_), *(masks[shard].mask() for shard in self._layout.asked)])

    def _examples(self, rows: Rows, others: torch.Tensor | None) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """(e, d): [Ret] of photos of the gallery, and of others."""
        of_rows = self._of(rows)
        return of_rows if others is None else np.concatenate([of_rows, others.cpu().float().numpy()])

    def _of(self, rows: Rows) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        unknown = np.setdiff1d(rows, self._rows)
        if len(unknown):
            split = list(self._layout.by_shard(unknown))
            answers = self._ask.ask({shard: RetOf(there) for shard, _, there in split})
            ret = np.empty((len(unknown), self._ret.shape[1]), np.float32)
            for shard, places, _ in split:
                ret[places] = answers[shard]
            self._add(unknown, ret)
        return self._ret[np.searchsorted(self._rows, rows)]

    def _add(self, rows: Rows, ret: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
        self._rows, first = np.unique(np.concatenate([self._rows, rows]), return_index=True)
        self._ret = np.concatenate([self._ret, ret])[first]

    def _add_scores(self, sketch: Tokens, rows: Rows, scores: Scores) -> None:
        if sketch is not self._sketch:
            self._sketch = sketch
            self._scored, self._scores = np.empty(0, np.int64), np.empty(0, np.float32)
        self._scored, first = np.unique(np.concatenate([self._scored, rows]), return_index=True)
        self._scores = np.concatenate([self._scores, scores])[first]

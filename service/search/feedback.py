"""Feedback: photos that are part of a query. Those that are liked lead, those that are not leave with their kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from model import Tokens
from model.ranking import led, pulled
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search.first_stage import Candidates, with_more
from service.search.gallery import Gallery, Pool
from service.search.parts import QueryParts
from service.search.ranking import NO_ROWS, Ids, Rows, Scores, best_first
from service.search.scoring import Scored

# Photos that come into the ranking because they are the most similar ones to liked photos, where clusters would choose
# others. [Ret] costs so little that there may be many.
NEAREST = 300
# The score of a photo at no distance.
HIGHEST = 0.0


@dataclass(frozen=True)
class Feedback:
    """The photos of a query.

    Attributes:
        liked, unliked: their rows, each once, ascending: the order of naming says nothing.
        uploaded: (1, d) [Ret] of a photo that came with the query, liked as well; None if there is none.
    """

    liked: Rows
    unliked: Rows
    uploaded: torch.Tensor | None = None

    @property
    def leads(self) -> bool:
        """Whether any photo is liked."""
        return len(self.liked) > 0 or self.uploaded is not None

    def ret(self, scorer: Gallery) -> torch.Tensor:
        """(l, d): [Ret] of all liked photos."""
        liked = scorer.ret(self.liked)
        return liked if self.uploaded is None else torch.cat([liked, self.uploaded.to(liked)])

    def likeness(self, scorer: Gallery, rows: Rows) -> Scores:
        """(m,) float32: how much these photos look like the most similar liked one."""
        return scorer.gallery_ret.likeness(self.liked, rows, self.uploaded)

    @classmethod
    def of_query(cls, query: SearchQuery, scorer: Gallery) -> Feedback:
        """The photos that a query names.

        Raises:
            UnknownPhoto: an id is no photo's.
            BadSearch: a photo is both liked and unliked, maybe by two of its ids.
        """
        liked, unliked = _rows(query.like, scorer), _rows(query.unlike, scorer)
        if len(both := np.intersect1d(liked, unliked)):
            raise BadSearch(f"like and unlike name the same photo, {scorer.ids[both[0]]}: leave one of them out.")
        return cls(liked, unliked)


def _rows(ids: Iterable[int], scorer: Gallery) -> Rows:
    """Where these photos are. One that is named twice, maybe by two of its ids, is there once."""
    return np.unique(scorer.rows_of_ids(ids))


def pool_of(scorer: Gallery, feedback: Feedback, passing: NDArray[np.bool_] | None = None) -> Pool:
    """The photos that may be found: unliked ones and their kind are not.

    passing: (p,) whether a photo passes the filters; None where there are none.
    """
    left_out = None if passing is None else ~passing
    if len(feedback.unliked):
        leaving = scorer.gallery_ret.leaving(feedback.unliked, feedback.liked, feedback.uploaded)
        left_out = leaving if left_out is None else left_out | leaving
    return Pool(scorer, left_out)


def parts_of(scorer: Gallery, feedback: Feedback, drawn: QueryParts | None, examples: Rows = NO_ROWS) -> QueryParts:
    """The query as it is compared with photos: the sketch as it is, or where photos are liked, a [Ret] near theirs.

    Args:
        drawn: None where there is no sketch.
        examples: photos that stand for the query where it has neither sketch nor liked photo. It is like no photo at
            all if there are none of these either.
    """
    if drawn is not None and not feedback.leads:
        return drawn
    sketch = None if drawn is None else drawn.sketch.ret
    liked = feedback.ret(scorer) if feedback.leads else scorer.ret(examples)
    return QueryParts(Tokens.of_ret(pulled(sketch, liked if len(liked) else liked.new_zeros(1, liked.shape[1]))))


def with_nearest(scorer: Gallery, candidates: Candidates, feedback: Feedback, pool: Pool) -> Candidates:
    """The candidates, and the photos that look most like the liked ones, whatever cluster they are in."""
    if not feedback.leads or not pool.count:
        return candidates
    near = pool.near_photos(feedback.ret(scorer), NEAREST)
    nearest = near[best_first(scorer.ids[near], feedback.likeness(scorer, near), NEAREST)]
    # They are the nearest to themselves, but others may be as near.
    nearest = np.union1d(nearest, feedback.liked[pool.holds(feedback.liked)])
    return replace(candidates, portions=with_more(candidates.portions, nearest))


def lead(scorer: Gallery, scored: Scored, feedback: Feedback) -> Scored:
    """The same photos, their scores led by the liked ones (``model.ranking.feedback``)."""
    if not feedback.leads or not len(scored.rows):
        return scored
    likeness = torch.from_numpy(feedback.likeness(scorer, scored.rows))
    return replace(scored, scores=led(torch.from_numpy(scored.scores), likeness).numpy())


def put_first(ids: Ids, scored: Scored, feedback: Feedback) -> tuple[Scored, NDArray[np.int64]]:
    """The order of the ranking: liked photos by id, with the score of a photo that is the query, then the others.

    Args:
        ids: of the photos of ``scored``.

    Returns:
        ``scored`` with the scores of the liked photos, and the indices of its photos in the order of the ranking.
    """
    order = best_first(ids, scored.scores)
    liked = np.isin(scored.rows, feedback.liked)
    if not liked.any():
        return scored, order
    order = np.concatenate([np.flatnonzero(liked)[ids[liked].argsort()], order[~liked[order]]])
    return replace(scored, scores=np.where(liked, np.float32(HIGHEST), scored.scores)), order

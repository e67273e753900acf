"""Presents a ranking: in pages, of which no later one shows a photo of an earlier one, and as groups of look-alikes."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine import Floats, Method
from sketch_search.model.ranking import groups_of, support_of
from sketch_search.model.search import Ids, Scores, best_first, interleave
from sketch_search.service.schemas.query import SearchQuery, TunedQuery
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.settings import Settings

# Groups in the order of their first photos: each has the indices of its photos among the grouped ones, ascending.
Groups: TypeAlias = tuple[NDArray[np.int64], ...]

# The share of the support of all grouped photos that puts a group far ahead. From here on, the first group is in most
# cases the one that was drawn.
FAR_AHEAD = 0.3


def grouped_ranks(ids: Ids, undiffused: Scores | None, count: int) -> NDArray[np.int64]:
    """Chooses the photos to group: (m,) ranks from 0, of the ranking and that before diffusion, (p,) or None, by turns.

    Diffusion moves small groups back: of 50 sketches of validation classes in everything, the right group was in the
    first 20 for 0.80 by the ranking, 0.88 before diffusion, 0.86 by turns; of 146 of trained ones 0.83, 0.85, 0.87.
    """
    ranking = np.arange(min(len(ids), count))
    if undiffused is None:
        return ranking
    return interleave([best_first(ids, undiffused, count)[: len(ranking)], ranking])[:count]


def is_far_ahead(scores: Scores, groups: Groups, method: Method) -> bool:
    """Returns True if the best photo's group has FAR_AHEAD of the support of all grouped photos, scores (m,)."""
    if not len(scores):
        return False
    best = int(scores.argmax())
    support = support_of(scores, float(scores[best]), method)
    leading = next(group for group in groups if best in group)
    return bool(support[leading].sum() >= FAR_AHEAD * support.sum())


def group_alike(vectors: NDArray[np.floating], mean: Floats) -> Groups:
    """Groups photos (m, d) around a mean (d,): ascending indices, in the order of the groups' first photos."""
    numbers = groups_of(vectors, mean)
    # A stable sort keeps the photos of a group in their order.
    by_group = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers)
    return tuple(np.split(by_group, np.cumsum(sizes)[:-1])) if len(numbers) else ()


class Place(NamedTuple):
    """Where the results of a search continue; ``SearchQuery.next`` is one, as text.

    A search chooses candidates, and ranks them. With more candidates the ranking is another one: photos would move to
    places that have been shown already, and never be seen. So one ranking is read to its end, then one of twice as many
    candidates from its beginning. Most of its first half has been shown: pages of that are as long as permitted.

    rerank: of the ranking; 0 for the query's. offset: how many of its results are on earlier pages. left: how many of
    its photos are on no earlier page; 0 if unknown. shown: the results up to this one have mostly been shown.
    """

    rerank: int
    offset: int
    left: int = 0
    shown: int = 0


def continue_page(query: SearchQuery, settings: Settings) -> tuple[TunedQuery, Place]:
    """Returns the query for the page that ``query.next`` names, or else for its own, and the place of that page."""
    tuned = query.tuned
    place = Place(tuned.rerank or 0, query.offset)
    if query.next is not None:
        place = Place(*map(int, query.next.split(".")))
    k = settings.max_k if place.offset < place.shown else query.k or settings.default_k
    page = {"k": min(k, place.left or k), "offset": place.offset, "rerank": place.rerank or None, "next": None}
    return tuned.model_copy(update=page), place


def next_place(query: SearchQuery, place: Place, answer: SearchResponse) -> str | None:
    """Returns the place after a page, as text; None if there are no further results."""
    shown = answer.results if answer.groups is None else answer.groups
    following = place._replace(offset=place.offset + len(shown))
    if answer.groups is not None:
        ended = query.k is None or len(shown) < query.k
    else:
        copies = sum(len(result.copies or ()) for result in answer.results)
        left = (place.left or answer.candidates - place.offset) - len(shown) - copies
        following = following._replace(rerank=answer.rerank or 0, left=left)
        ended = not shown or left <= 0
        # If fewer photos were ranked than wanted, there are no others.
        if ended and shown and answer.rerank is not None and answer.candidates >= answer.rerank:
            following, ended = Place(2 * answer.candidates, 0, shown=answer.candidates), False
    return None if ended else ".".join(map(str, following))

"""Continues the results of a search on another page, so that no photo moves from a later page to an earlier one."""

from typing import NamedTuple

from sketch_search.service.schemas.query import SearchQuery
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.settings import Settings


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


def continue_page(query: SearchQuery, settings: Settings) -> tuple[SearchQuery, Place]:
    """Returns the query for the page that ``query.next`` names, or else for its own, and the place of that page."""
    place = Place(query.rerank or 0, query.offset)
    if query.next is not None:
        place = Place(*map(int, query.next.split(".")))
    k = settings.max_k if place.offset < place.shown else query.k or settings.default_k
    page = {"k": min(k, place.left or k), "offset": place.offset, "rerank": place.rerank or None, "next": None}
    return query.model_copy(update=page), place


def next_place(query: SearchQuery, place: Place, answer: SearchResponse) -> str | None:
    """Returns the place after a page, as text; None if there are no further results."""
    found = answer.results if answer.groups is None else answer.groups
    following = place._replace(offset=place.offset + len(found))
    if answer.groups is not None:
        ended = query.k is None or len(found) < query.k
    else:
        copies = sum(len(result.copies or ()) for result in answer.results)
        left = (place.left or answer.candidates - place.offset) - len(found) - copies
        following = following._replace(rerank=answer.rerank or 0, left=left)
        ended = not found or left <= 0
        # If fewer photos were ranked than wanted, there are no others.
        if ended and found and answer.rerank is not None and answer.candidates >= answer.rerank:
            following, ended = Place(2 * answer.candidates, 0, shown=answer.candidates), False
    return None if ended else ".".join(map(str, following))

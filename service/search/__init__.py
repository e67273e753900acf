"""The two-stage search over one generation of an index; ``searcher`` tells it in one screen."""

from service.search.gallery import Near, SearchedIndex, Surroundings
from service.search.plan import Defaults
from service.search.searcher import GallerySearcher, Searcher
from service.search.shown import search_response
from service.search.trial import check_searches

__all__ = [
    "Defaults",
    "GallerySearcher",
    "Near",
    "SearchedIndex",
    "Searcher",
    "Surroundings",
    "check_searches",
    "search_response",
]

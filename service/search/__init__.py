"""The two-stage search over one generation of an index; ``searcher`` tells it in one screen."""

from service.search.gallery import FOUND_AT_LEAST, GalleryRows, Mask, Near, SearchedIndex, Surroundings, Word, WordLead
from service.search.naming import word_scores
from service.search.parts import Encode, QueryParts
from service.search.plan import Defaults
from service.search.ranking import Ids, Rows, Scores, best_first
from service.search.searcher import GallerySearcher, Searcher
from service.search.trial import check_searches

__all__ = [
    "FOUND_AT_LEAST",
    "Defaults",
    "Encode",
    "GalleryRows",
    "GallerySearcher",
    "Ids",
    "Mask",
    "Near",
    "QueryParts",
    "Rows",
    "Scores",
    "SearchedIndex",
    "Searcher",
    "Surroundings",
    "Word",
    "WordLead",
    "best_first",
    "check_searches",
    "word_scores",
]

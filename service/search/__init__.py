"""The two-stage search over one generation of an index."""

from service.search.outcome import Hit, SearchOutcome
from service.search.searcher import Searcher
from service.search.trial import search_once

__all__ = [
    "Hit",
    "SearchOutcome",
    "Searcher",
    "search_once",
]

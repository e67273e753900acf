"""The two-stage search over one generation of an index; ``searcher`` tells it in one screen."""

from service.search.outcome import Hit, SearchOutcome
from service.search.plan import Defaults
from service.search.searcher import Searcher
from service.search.trial import check_searches

__all__ = [
    "Defaults",
    "Hit",
    "SearchOutcome",
    "Searcher",
    "check_searches",
]

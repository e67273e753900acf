"""What is shown of a ranking: near duplicates folded, kinds of photos, one page of them, and the answer's fields."""

from service.search.shown.folding import FOLDED, Folded, fold
from service.search.shown.grouping import group_kinds, grouped_places, is_far_ahead
from service.search.shown.outcome import FoundKind, Hit, SearchOutcome, search_response

__all__ = [
    "FOLDED",
    "Folded",
    "FoundKind",
    "Hit",
    "SearchOutcome",
    "fold",
    "group_kinds",
    "grouped_places",
    "is_far_ahead",
    "search_response",
]

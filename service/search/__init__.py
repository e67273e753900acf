"""The search in two stages over one generation of an index; ``searcher`` tells it in one screen."""

from service.search.gallery import (
    Cells,
    Find,
    Floats,
    Gallery,
    Ids,
    IndexGallery,
    Rows,
    Scores,
    SearchedIndex,
    Table,
    best_first,
)
from service.search.plan import Defaults, Encode, methods_of
from service.search.searcher import GallerySearcher, Searcher
from service.search.trial import check_searches

__all__ = [
    "Cells",
    "Defaults",
    "Encode",
    "Find",
    "Floats",
    "Gallery",
    "GallerySearcher",
    "Ids",
    "IndexGallery",
    "Rows",
    "Scores",
    "SearchedIndex",
    "Searcher",
    "Table",
    "best_first",
    "check_searches",
    "methods_of",
]

"""The search in two stages over one generation of an index; ``searcher`` tells it in one screen."""

from service.search.around import Near
from service.search.encoding import Encode
from service.search.gallery import Cells, Find, Floats, Gallery, Ids, IndexGallery, Rows, Scores, SearchedIndex, Table
from service.search.plan import Defaults, methods_of
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
    "Near",
    "Rows",
    "Scores",
    "SearchedIndex",
    "Searcher",
    "Table",
    "check_searches",
    "methods_of",
]

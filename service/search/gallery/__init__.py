"""What a search asks of one generation of an index: [Ret] and scores of its photos, and the photos near a drawing."""

from service.search.gallery.interface import Gallery, SearchedIndex, Word, WordLead
from service.search.gallery.pool import Pool
from service.search.gallery.ret import FOUND_AT_LEAST, GalleryRet, Mask
from service.search.gallery.rows import GalleryRows
from service.search.gallery.scorer import GalleryScorer
from service.search.gallery.surroundings import Near, Surroundings

__all__ = [
    "FOUND_AT_LEAST",
    "Gallery",
    "GalleryRet",
    "GalleryRows",
    "GalleryScorer",
    "Mask",
    "Near",
    "Pool",
    "SearchedIndex",
    "Surroundings",
    "Word",
    "WordLead",
]

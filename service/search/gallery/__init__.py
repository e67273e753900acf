"""What a search asks of one generation of an index: [Ret] and scores of its photos, and the photos near a drawing."""

from service.search.gallery.pool import Pool
from service.search.gallery.scorer import GalleryScorer
from service.search.gallery.surroundings import Near, Surroundings

__all__ = [
    "GalleryScorer",
    "Near",
    "Pool",
    "Surroundings",
]

"""The files of the photos that an index was made from: opened as pictures, and as thumbnails."""

from service.photos.originals import picture
from service.photos.thumbnails import ThumbnailCache, thumbnail

__all__ = [
    "ThumbnailCache",
    "picture",
    "thumbnail",
]

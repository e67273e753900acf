"""The files of the photos that an index was made from: opened, prepared for the network, and as thumbnails."""

from service.photos.originals import picture, prepared
from service.photos.thumbnails import ThumbnailCache, thumbnail

__all__ = [
    "ThumbnailCache",
    "picture",
    "prepared",
    "thumbnail",
]

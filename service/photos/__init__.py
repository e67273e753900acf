"""The files of the photos that an index was made from: originals, the same opened as pictures, and thumbnails."""

from service.photos.originals import original, picture
from service.photos.thumbnails import ThumbnailCache, thumbnail

__all__ = [
    "ThumbnailCache",
    "original",
    "picture",
    "thumbnail",
]

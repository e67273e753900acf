"""The photos' own files: originals and thumbnails."""

from service.photos.originals import original, picture
from service.photos.thumbnails import Shelf, thumbnail

__all__ = [
    "Shelf",
    "original",
    "picture",
    "thumbnail",
]

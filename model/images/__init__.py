"""Pictures: opening files safely, finding the ink of a sketch, and preparing pixels for a network."""

from model.images.files import IMAGE_SUFFIXES, Source, media_type, open_image
from model.images.ink import Pixels
from model.images.preprocess import Preprocessing

__all__ = [
    "IMAGE_SUFFIXES",
    "Pixels",
    "Preprocessing",
    "Source",
    "media_type",
    "open_image",
]

"""Defines the galleries of the service, and searches one index in this process."""

from sketch_search.service.gallery.gallery import Gallery, OpenGallery
from sketch_search.service.gallery.local import LocalGallery

"""Defines the interface between a search and its photos, and searches one index in this process."""

from sketch_search.service.gallery.candidates import (
    Candidates,
    Ids,
    Nearest,
    PhotoRows,
    Scores,
    ShardQuery,
    Word,
    best_first,
    interleaved,
    most_alike,
)
from sketch_search.service.gallery.gallery import Clusters, Gallery, OpenGallery, Scored
from sketch_search.service.gallery.local import LocalGallery

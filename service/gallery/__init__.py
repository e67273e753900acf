"""The photos that are searched: what a gallery answers, and a gallery that is one index in this process."""

from service.gallery.candidates import (
    Candidates,
    Ids,
    Nearest,
    Rows,
    Scores,
    ShardQuery,
    Word,
    best_first,
    interleaved,
    most_alike,
)
from service.gallery.clusters import Clusters
from service.gallery.gallery import Gallery, OpenGallery
from service.gallery.local import LocalGallery

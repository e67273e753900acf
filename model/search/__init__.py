"""Searches galleries in two stages: ``stages`` outlines it on one screen, ``rank`` carries it out."""

from sketch_search.model.search.candidates import (
    Candidates,
    Clusters,
    Gallery,
    Ids,
    Nearest,
    PhotoRows,
    Query,
    Scored,
    Scores,
    Word,
    best_first,
    first_of_each,
    interleave,
    most_alike,
)
from sketch_search.model.search.drawings import (
    encode_things,
    methods_of,
    name_things,
    plan_by_default,
    query_of,
    search_drawing,
    search_things,
    sketch_of,
)
from sketch_search.model.search.photos import PhotoGallery, gallery_of
from sketch_search.model.search.stages import Plan, Ranking, rank

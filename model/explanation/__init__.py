"""Why a photo matches a sketch or is like a photo: attention, correspondences, influential pairs, rebuilt sketches."""

from model.explanation.pair import (
    Explanation,
    Observed,
    PairInfluence,
    SelfAttention,
    compare,
    compare_photos,
    explain,
    influential_pairs,
    observe,
)
from model.explanation.rebuild import NearestPatches, Replacement, assembled, cut, from_photos, nearest_replacements

"""Why a photo matches a sketch or is like a photo: attention, correspondences, influential pairs, rebuilt sketches."""

from model.explanation.influence import PairInfluence, influential_pairs
from model.explanation.pair import (
    Explanation,
    Observed,
    SelfAttention,
    compare,
    compare_photos,
    explain,
    observe,
)
from model.explanation.rebuild import NearestPatches, Replacement, assembled, cut, from_photos, nearest_replacements

__all__ = [
    "Explanation",
    "NearestPatches",
    "Observed",
    "PairInfluence",
    "Replacement",
    "SelfAttention",
    "assembled",
    "compare",
    "compare_photos",
    "cut",
    "explain",
    "from_photos",
    "influential_pairs",
    "nearest_replacements",
    "observe",
]

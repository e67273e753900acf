"""Scores of a whole gallery: diffusion between similar photos, and estimates for photos that were not scored;
the kinds that its photos fall into, and which of them are near duplicates; photos that somebody likes, which
lead the others, as those do that show what a word names."""

from model.ranking.diffusion import SHORTLIST, ScoredBy, diffused, estimated, scores_of, support_of
from model.ranking.leading import EXAMPLES, fits, led, led_by_word, named, pulled
from model.ranking.likeness import (
    ALIKE,
    SAME,
    first_of_same,
    kinds_of,
    likeness_to,
    pairs_to_compare,
    sameness,
)

"""Scores of a whole gallery: diffusion between similar photos, and estimates for photos that were not scored;
the kinds that its photos fall into, and which of them are near duplicates; photos that somebody likes, which
lead the others, as those do that show what a word names."""

from model.ranking.diffusion import SHORTLIST, diffused
from model.ranking.duplicates import SAME, first_of_same, pairs_to_compare, sameness
from model.ranking.estimate import estimated
from model.ranking.feedback import led, pulled
from model.ranking.kinds import ALIKE, kinds_of, mean_direction
from model.ranking.likeness import Likeness
from model.ranking.support import ScoredBy, scores_of, support_of
from model.ranking.words import EXAMPLES, fits, led_by_word, named

__all__ = [
    "ALIKE",
    "EXAMPLES",
    "SAME",
    "SHORTLIST",
    "Likeness",
    "ScoredBy",
    "diffused",
    "estimated",
    "first_of_same",
    "fits",
    "kinds_of",
    "led",
    "led_by_word",
    "mean_direction",
    "named",
    "pairs_to_compare",
    "pulled",
    "sameness",
    "scores_of",
    "support_of",
]

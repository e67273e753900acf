"""Scores of a whole gallery: diffusion between similar photos, and estimates for photos that were not scored;
the kinds that its photos fall into; and photos that somebody likes, which lead the others."""

from model.ranking.diffusion import SHORTLIST, diffused
from model.ranking.estimate import estimated
from model.ranking.feedback import led, pulled
from model.ranking.kinds import kinds_of, mean_direction
from model.ranking.likeness import Likeness
from model.ranking.support import scores_of, support_of

__all__ = [
    "SHORTLIST",
    "Likeness",
    "diffused",
    "estimated",
    "kinds_of",
    "led",
    "mean_direction",
    "pulled",
    "scores_of",
    "support_of",
]

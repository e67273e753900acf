"""Scores of a whole gallery: diffusion between similar photos, and estimates for photos that were not scored;
and the kinds that its photos fall into."""

from model.ranking.diffusion import SHORTLIST, diffused
from model.ranking.estimate import estimated
from model.ranking.kinds import kinds_of, mean_direction

__all__ = [
    "SHORTLIST",
    "diffused",
    "estimated",
    "kinds_of",
    "mean_direction",
]

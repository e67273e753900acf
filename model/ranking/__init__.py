"""Scores of a whole gallery: diffusion between similar photos, and estimates for photos that were not scored."""

from model.ranking.diffusion import SHORTLIST, diffused
from model.ranking.estimate import estimated

__all__ = [
    "SHORTLIST",
    "diffused",
    "estimated",
]

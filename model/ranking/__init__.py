"""What is done to the scores of a whole gallery: diffusion, and estimates for photos that were not scored."""

from model.ranking.diffusion import SHORTLIST, diffused
from model.ranking.estimate import estimated

__all__ = [
    "SHORTLIST",
    "diffused",
    "estimated",
]

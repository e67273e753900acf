"""Estimates of a sketch's scores for photos that were not scored, from the photos that were.

[Ret] gives two facts about every photo at almost no cost: its distance to the sketch, and how similar it is to other
photos. A regression line predicts the score from the distance; similar photos deviate from the line in similar ways.
"""

from __future__ import annotations

import torch

from model.ranking.diffusion import centred
from model.ranking.support import ScoredBy

# Weight of a deviation of zero in the mean of the scored photos' deviations: a photo that is similar to none of them
# stays on the line. On validation classes, values from 0.1 to 2 differ by less than chance.
PRIOR_WEIGHT = 0.5
# Relation scores are kept this far from 0 and 1, to which float32 rounds some, so that their logits are finite.
MARGIN = 1e-7


def estimated(
    scores: torch.Tensor,
    known: torch.Tensor,
    distances: torch.Tensor,
    ret: torch.Tensor,
    threshold: float,
    method: ScoredBy,
) -> torch.Tensor:
    """The known scores as they are, and estimates in the place of the others.

    Let x_j be the logits of the known relation scores (or the known fused scores themselves), l the least-squares line
    from the distances d_j to the x_j, made level where it would rise, and A_ij the affinity of two photos as in the
    diffusion. Then the estimate of photo i is

        x_i = l(d_i) + sum_j A_ij (x_j - l(d_j)) / (PRIOR_WEIGHT + sum_j A_ij), over the known j.

    Args:
        scores: (p,) float32 by ``method``, higher is better; only those of known photos are read.
        known: (p,) bool, the photos that were scored.
        distances: (p,) distances of the photos' [Ret] to the sketch's.
        ret: (p, d) retrieval tokens of the photos.
        threshold: as in the diffusion.
        method: "rn" or "fused".

    Returns:
        (p,) float32. If no photo is known, the estimates rank the photos by distance.
    """
    x, d = scores[known].double(), distances.double()
    if method == "rn":
        x = x.clamp(MARGIN, 1 - MARGIN).logit()
    line = _line(d[known], x, d)
    directions, deviations = centred(ret), (x - line[known]).float()
    affinity = (directions[~known] @ directions[known].T - threshold).clamp_(min=0)
    estimates = line[~known] + (affinity @ deviations) / (PRIOR_WEIGHT + affinity.sum(dim=1))
    if method == "rn":
        estimates = estimates.sigmoid()
    return scores.masked_scatter(~known, estimates.float())


def _line(distances: torch.Tensor, values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The least-squares line through the points, evaluated ``at``; level where it would rise. Without points, -at."""
    if not len(values):
        return -at
    dx, dy = distances - distances.mean(), values - values.mean()
    variation = (dx**2).sum()
    slope = ((dx * dy).sum() / variation).clamp(max=0) if variation > 0 else torch.zeros_like(variation)
    return values.mean() + slope * (at - distances.mean())

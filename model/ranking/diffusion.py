"""Diffusion: photos that look alike share their scores.

The score of a pair judges one photo alone, by a few strokes. How similar two photos are is far more certain than how
similar a sketch is to a photo. So an error in one photo's score is corrected by the photos that look like it. This is
a diffusion process on the affinity graph of the gallery (Donoser and Bischof, CVPR 2013).

Scores are averaged as *support*, which is between 0 and 1, higher for better photos. A mean of distances, or of logits,
would be ruled by the photos that are far from the sketch. Photos that were not scored get an estimate: [Ret] gives
their distance to the sketch and their likeness to other photos at almost no cost, a regression line predicts the score
from the distance, and similar photos deviate from the line in similar ways.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F

from model.network import Method

#: A score is by a method of a network, or "clip", the cosine of CLIP's vectors.
ScoredBy: TypeAlias = Method | Literal["clip"]

# [Ret] distances d are averaged as exp(-d^2 / RET_WIDTH), so that far photos weigh nothing.
RET_WIDTH = 0.2
# Fused scores f are averaged as exp((f - best) / FUSED_WIDTH), because their range depends on the fusion weight.
FUSED_WIDTH = 2.0
# CLIP's cosines c are averaged as exp((c - best) / CLIP_WIDTH), because they are close together, and how far up depends
# on the model. Pictures of different things often differ by so much; it was not measured.
CLIP_WIDTH = 0.05
_WIDTHS = {"fused": FUSED_WIDTH, "clip": CLIP_WIDTH}


def support_of(scores: torch.Tensor, best: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """Scores by ``method``, of any shape, as support in [0, 1]. best: the sketch's highest score."""
    if method == "ret":
        return torch.exp(-(scores**2) / RET_WIDTH)
    return scores if method == "rn" else torch.exp((scores - best) / _WIDTHS[method])


def scores_of(support: torch.Tensor, best: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """The scores by ``method`` that have this support: the inverse of ``support_of``."""
    if method == "ret":
        return -torch.sqrt((-RET_WIDTH * support.log()).clamp(min=0))
    if method == "rn":
        return support
    return best + _WIDTHS[method] * support.clamp(min=torch.finfo(support.dtype).tiny).log()


# Steps of the diffusion. Neighbours of neighbours still help; with many more steps, classes mix.
ROUNDS = 3
# Only so many of a sketch's best photos take part. It bounds the cost: SHORTLIST x SHORTLIST cosines for each sketch.
SHORTLIST = 1000


def diffused(scores: torch.Tensor, ret: torch.Tensor, threshold: float, method: ScoredBy) -> torch.Tensor:
    """Scores after diffusion over the photos, computed for each sketch separately.

    Let r_i be the normalised [Ret] of photo i minus the mean of all, normalised again, and
    A_ij = max(0, r_i . r_j - threshold). Each round replaces the scores f by D^-1 A f, where D holds the row sums of A:
    every photo gets a weighted mean of its own score and of those of similar photos. The mean is subtracted because
    what all photos share, such as their style, makes no two of them similar. Relation scores are averaged as they are;
    distances and fused scores are mapped into (0, 1], averaged, and mapped back.

    Only the SHORTLIST best photos of a sketch take part. The others follow in their previous order, their scores
    capped at the lowest score of the shortlist.

    Args:
        scores: (s, p) by ``method``, higher is better.
        ret: (p, d) retrieval tokens of the photos.
        threshold: cosine r_i . r_j up to which two photos do not share scores.
        method: how ``scores`` were computed.

    Returns (s, p) float32 on the CPU, in the range of the scores of ``method``.
    """
    before = scores.to("cpu", torch.float32)
    ret = ret.cpu()
    after = torch.empty_like(before)
    for row, of_sketch in enumerate(before):
        order = of_sketch.argsort(descending=True, stable=True)
        first, rest = order[:SHORTLIST], order[SHORTLIST:]
        directions = centred(ret[first])
        weights = (directions @ directions.T - threshold).clamp_(min=0).fill_diagonal_(1 - threshold)
        sums = weights.sum(dim=1)
        best = of_sketch[first[0]]
        support = support_of(of_sketch[first], best, method)
        for _ in range(ROUNDS):
            support = (weights @ support) / sums
        after[row, first] = scores_of(support, best, method)
        if len(rest):
            after[row, rest] = of_sketch[rest].clamp(max=float(after[row, first].min()))
    return after


def centred(ret: torch.Tensor, mean: torch.Tensor | None = None) -> torch.Tensor:
    """(p, d) retrieval tokens of photos -> (p, d) float32: normalised, minus ``mean``, normalised again.

    mean: (d,) of normalised retrieval tokens; None for the mean of these photos.
    """
    directions = F.normalize(ret.float(), dim=1)
    return F.normalize(directions - (directions.mean(dim=0) if mean is None else mean), dim=1)


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

    Returns (p,) float32. If no photo is known, the estimates rank the photos by distance.
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

"""Diffusion: photos that look alike share their scores.

The score of a pair judges one photo alone, by a few strokes. How similar two photos are is far more certain than how
similar a sketch is to a photo. So an error in one photo's score is corrected by the photos that look like it. This is
a diffusion process on the affinity graph of the gallery (Donoser and Bischof, CVPR 2013).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.ranking.support import ScoredBy, scores_of, support_of

# Steps of the diffusion. Neighbours of neighbours still help; with many more steps, classes mix.
ROUNDS = 3
# How many of a sketch's best photos take part. It bounds the cost: SHORTLIST x SHORTLIST cosines for each sketch.
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

    Returns:
        (s, p) float32 on the CPU, in the range of the scores of ``method``.
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

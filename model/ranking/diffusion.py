"""Diffusion: photos that look alike lend each other their scores.

A pair's score judges one photo by itself, from a few strokes. What the photos of a gallery have in common is seen far
more surely than what a sketch has in common with them, so an error that one photo's score makes is mended by the
photos around it. This is a diffusion process on the gallery's affinity graph (Donoser and Bischof, CVPR 2013).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.network import Method

# Steps of the diffusion: what neighbours' neighbours say still helps; far beyond them classes run together.
ROUNDS = 3
# Photos that take part, the best of a sketch's ranking: bounds the cost at (SHORTLIST, SHORTLIST) cosines a sketch.
SHORTLIST = 1000
# Distances d of [Ret] are averaged as exp(-d^2 / RET_WIDTH), in which far photos weigh nothing.
RET_WIDTH = 0.2
# Fused scores f are averaged as exp((f - best) / FUSED_WIDTH): where they lie depends on the fusion's weight.
FUSED_WIDTH = 2.0


def diffused(scores: torch.Tensor, ret: torch.Tensor, threshold: float, method: Method) -> torch.Tensor:
    """Scores after their diffusion over the photos, each sketch's for itself.

    With r_i the direction of photo i's normalised [Ret] from the mean of all, and A_ij = max(0, r_i . r_j - threshold),
    a round replaces the scores f by D^-1 A f, where D holds the row sums of A: each photo's becomes a weighted mean of
    its own and of those near it. The mean is taken off because what all photos share, their style say, makes none of
    them the like of another. Relation scores are averaged as they are, distances and fused scores in a form that lies
    in (0, 1), and put back.

    Only the SHORTLIST best photos of a sketch take part; the others follow behind them, in their order before, with
    scores capped at the shortlist's last.

    Args:
        scores: (s, p) by ``method``, higher is better.
        ret: (p, d) retrieval tokens of the photos.
        threshold: cosine of those directions below which two photos have nothing to do with each other.

    Returns:
        (s, p) float32 on the CPU, in the range that the scores of ``method`` have.
    """
    before = scores.to("cpu", torch.float32)
    ret = ret.cpu()
    after = torch.empty_like(before)
    for row, of_sketch in enumerate(before):
        order = of_sketch.argsort(descending=True, stable=True)
        first, rest = order[:SHORTLIST], order[SHORTLIST:]
        near = centred(ret[first])
        weights = (near @ near.T - threshold).clamp_(min=0).fill_diagonal_(1 - threshold)
        sums = weights.sum(dim=1)
        best = of_sketch[first[0]]
        support = _support(of_sketch[first], best, method)
        for _ in range(ROUNDS):
            support = (weights @ support) / sums
        after[row, first] = _score(support, best, method)
        if len(rest):
            after[row, rest] = of_sketch[rest].clamp(max=float(after[row, first].min()))
    return after


def centred(ret: torch.Tensor) -> torch.Tensor:
    """(p, d) retrieval tokens of photos -> (p, d) float32, directions of their directions from the mean of all."""
    directions = F.normalize(ret.float(), dim=1)
    return F.normalize(directions - directions.mean(dim=0), dim=1)


def _support(scores: torch.Tensor, best: torch.Tensor, method: Method) -> torch.Tensor:
    if method == "ret":
        return torch.exp(-(scores**2) / RET_WIDTH)
    return scores if method == "rn" else torch.exp((scores - best) / FUSED_WIDTH)


def _score(support: torch.Tensor, best: torch.Tensor, method: Method) -> torch.Tensor:
    if method == "ret":
        return -torch.sqrt((-RET_WIDTH * support.log()).clamp(min=0))
    return support if method == "rn" else best + FUSED_WIDTH * support.clamp(min=torch.finfo(support.dtype).tiny).log()

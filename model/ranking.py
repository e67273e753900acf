"""Scores of a whole gallery: diffusion, estimates, liked photos and words that lead, kinds and near duplicates.

All of it rests on one thing: how similar two photos are is far more certain than how similar a sketch is to a photo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from model.network import Method, Tokens

# Diffusion: photos that look alike share their scores. The score of a pair judges one photo alone, by a few strokes; an
# error in it is corrected by the photos that look like that one. This is a diffusion process on the affinity graph of
# the gallery (Donoser and Bischof, CVPR 2013).
#
# Scores are averaged as *support*, which is between 0 and 1, higher for better photos. A mean of distances, or of
# logits, would be ruled by the photos that are far from the sketch. Photos that were not scored get an estimate: [Ret]
# gives their distance to the sketch and their likeness to other photos at almost no cost, a regression line predicts
# the score from the distance, and similar photos deviate from the line in similar ways.

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


# Photos that a person likes, or that show what a word names, lead a ranking: a query with liked photos goes to where
# they are among all photos, and the sketch only decides between what is there.
#
# WIDTH and WORD_LEAD were chosen on every other one of 1,000 ordinary photos, with sketches that were not trained on.
# With WIDTH from 3 to 6, or WORD_LEAD from 0.7 to 0.9, a sketch and a word together find more than each of them alone;
# with 2 and 0.7 the word alone found more. All of that was the vocabulary; scores by CLIP are logits, too.

# Weight of the mean of the liked photos beside the sketch, which has 1. From 2 on, it hardly matters on validation
# classes. The relation network's scores, mixed in, made rankings worse there.
PULL = 4.0
# The share of the support that comes, after diffusion, from the likeness to the most similar liked photo. The mean of
# several liked photos may be like none of them.
LEAD = 0.5
# The share of the support that is the word's.
WORD_LEAD = 0.8
# Support of a word falls by e for so much less of its score than the best photo has.
WIDTH = 4.0
# Photos whose [Ret] stands for a word where there is neither sketch nor liked photo: the best ones by the word. On
# ordinary photos, 1 to 10 of them found more than the word's scores alone, and differed by less than chance.
EXAMPLES = 5
# The best of _FITS_FROM photos has a score of at least 0 by a word that fits. The best of more photos has a higher one,
# because a photo that does not show the word reaches more by chance then. Both numbers were chosen so that a word of
# one to three photos is seldom said not to fit.
_FITS_FROM = 50
_FITS_SLOPE = 2 / 3


def pulled(sketch: torch.Tensor | None, liked: torch.Tensor) -> torch.Tensor:
    """The [Ret] of a query with liked photos, after Rocchio (1971).

    It is the sum of the sketch's normalised [Ret] and PULL times the liked photos' mean one, normalised.

    Args:
        sketch: (1, d) retrieval token; None where there is no sketch.
        liked: (l, d) retrieval tokens of photos, at least one.

    Returns (1, d) float32.
    """
    photos = F.normalize(F.normalize(liked.float(), dim=1).mean(dim=0, keepdim=True), dim=1)
    return photos if sketch is None else F.normalize(F.normalize(sketch.float(), dim=1) + PULL * photos, dim=1)


def led(scores: torch.Tensor, likeness: torch.Tensor) -> torch.Tensor:
    """Scores by [Ret], led by the photos that are liked.

    scores: (p,) by "ret", with p at least 1. likeness: (p,) as ``likeness_to`` gives it; below 0 it counts as 0.
    Returns (p,) float32 on the CPU, by "ret": at most 0.
    """
    return _led(scores.to("cpu", torch.float32), likeness.clamp(min=0), LEAD, "ret")


def led_by_word(scores: torch.Tensor, words: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """Scores (m,) of photos by ``method``, led by a word with this support (m,); in the range of ``method``."""
    return _led(scores, words, WORD_LEAD, method) if len(scores) else scores


def _led(scores: torch.Tensor, other: torch.Tensor, lead: float, method: ScoredBy) -> torch.Tensor:
    """Mixes support: with s_i that of photo i, divided by the highest one, the new one is (1 - lead) s_i + lead o_i."""
    best = scores.max()
    # + 0.0 makes 0 of -0.
    return scores_of((1 - lead) * shares_of(scores, method) + lead * other, best, method) + 0.0


def shares_of(scores: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """(m,) in 0..1: the support of each score as a share of the highest support. m is at least 1."""
    support = support_of(scores, scores.max(), method)
    return support / support.max().clamp(min=torch.finfo(torch.float32).tiny)


def named(scores: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """The support of photos by a word, (p,) in 0..1: how much they show what it names.

    With w_i the score of photo i by the word, its support is exp((w_i - best) / WIDTH).

    scores: (p,) logits. best: the highest score of a photo that may be found; others may be above it.
    """
    return torch.exp((scores - best).clamp(max=0) / WIDTH)


def fits(best: float, photos: int) -> bool:
    """True if any of so many photos is likely to show what a word of the vocabulary names.

    best: the highest score of them by the word.
    """
    return photos > 0 and best >= _FITS_SLOPE * math.log(photos / _FITS_FROM)


# A sketch says too little to be sure of: twenty pigs may be shown where a dog was drawn, while the dogs come right
# after them. So a page of kinds shows each of them once. The photos are compared with each other, not with the sketch.
#
# [Ret] says what a picture shows, and two photos of one thing may be nearer than a photo and its reduced copy. So it
# only finds pairs that are worth comparing; patch tokens and their places decide whether they are one picture.

# Cosine of two centred [Ret] above which a photo is of the kind of the other. Measured in a gallery of 12,890 photos of
# everything, with sketches of classes held back from the network: the right kind was among the first 20 kinds for 0.81
# of the sketches, and a right photo among the first 20 photos for 0.64. It is no threshold of diffusion, above which
# photos share scores little by little: here a photo is in a kind or not.
ALIKE = 0.45


def kinds_of(ret: torch.Tensor, mean: torch.Tensor, threshold: float = ALIKE) -> torch.Tensor:
    """The kind of each photo of a ranking.

    Let r_i be the normalised [Ret] of the i-th photo minus ``mean``, normalised again. Down the ranking, photo i joins
    the first kind whose first photo j has r_i . r_j above the threshold. If there is none, it begins a kind.

    Args:
        ret: (p, d) retrieval tokens of the photos, best first.
        mean: (d,) of the normalised [Ret] of the whole gallery. The mean of the ranking itself would hide what
            its photos have in common, which is what makes them a kind.
        threshold: cosine above which two photos are alike.

    Returns (p,) int64 on the CPU: kinds are numbered from 0, in the order of their first photos.
    """
    directions = centred(ret, mean).cpu()
    # In numpy, whose calls on a few hundred values take less time than PyTorch's.
    alike = (directions @ directions.T > threshold).numpy()
    kinds = np.full(len(directions), -1, np.int64)
    kind = 0
    # Kind by kind is the same as photo by photo: the next photo without a kind is like no first photo before it.
    for first in range(len(directions)):
        if kinds[first] >= 0:
            continue
        joining = alike[first] & (kinds < 0)
        # A photo that is exactly the mean is like no photo, but of a kind all the same.
        joining[first] = True
        kinds[joining] = kind
        kind += 1
    return torch.from_numpy(kinds)


# Below this distance to the mean a photo has no direction: it is like no photo.
_SAME = 1e-6


def likeness_to(examples: torch.Tensor, ret: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """How much photos look like the most similar one of some examples: the highest cosine of their centred [Ret].

    Args:
        examples, ret: (e, d) and (p, d) retrieval tokens, at least one example.
        mean: (d,) as for ``kinds_of``.

    Returns (p,) float32 on the CPU, -1 to 1.
    """
    rests = [F.normalize(some.float(), dim=1) - mean for some in (ret, examples)]
    photos, others = (F.normalize(rest * (rest.norm(dim=1, keepdim=True) > _SAME), dim=1) for rest in rests)
    return (photos @ others.T).max(dim=1).values.clamp(-1, 1).cpu()


# Cosine of two [Ret] above which a pair is compared, and how many photos before it each photo is compared with: a copy
# is nearer to its original than 98 of 100 other photos are.
LOOK = 0.8
LOOKED_AT = 3
# Two pictures are one from this sameness on. A new default network needs it measured again: to this one photos are more
# alike than to the one before, for which it was 0.78.
SAME = 0.82
# Networks without patch tokens compare the cosine of [Ret] with this: far fewer copies are found.
SAME_BY_RET = 0.97
# So many cells of the patch grid may a detail have moved.
_MOVED = 1
# Pairs whose tokens are compared at a time: some 30 MiB with the default network.
_PAIRS = 128


def pairs_to_compare(ret: torch.Tensor) -> torch.Tensor:
    """The pairs of a ranking that may be near duplicates: each photo with the most similar ones before it.

    ret: (p, d) retrieval tokens, best first.

    Returns (m, 2) int64 on the CPU: places of a photo and of an earlier one, from 0. In the order of the first, and for
    one photo in that of falling cosine. All cosines are above LOOK.
    """
    directions = F.normalize(ret.float(), dim=1).cpu()
    cosines = torch.tril(directions @ directions.T, diagonal=-1)
    values, places = cosines.topk(min(LOOKED_AT, len(cosines)), dim=1)
    later, column = torch.nonzero(values > LOOK, as_tuple=True)
    return torch.stack([later, places[later, column]], dim=1)


def sameness(tokens: Tokens, pairs: torch.Tensor, grid: int) -> torch.Tensor:
    """Measures how much of the pictures of each pair is the same, in the same places.

    A patch token has the cosine of the token of the other picture that is most like it among those at most one cell of
    the patch grid away, and 0 where there is none or it is negative. The result is the mean of all of them, for either
    picture, and of both. Without patch tokens it is 1 where the cosine of [Ret] is above SAME_BY_RET, else 0.

    tokens: of photos. pairs: (m, 2) int64, which of them are compared. grid: cells in a row of the patch grid.

    Returns (m,) float32 on the CPU, 0 to 1.
    """
    parts = [torch.empty(0)]
    for start in range(0, len(pairs), _PAIRS):
        batch = pairs[start : start + _PAIRS]
        first, second = tokens[batch[:, 0]], tokens[batch[:, 1]]
        if tokens.positions.shape[1]:
            parts.append(_sameness(first, second, grid).cpu())
        else:
            parts.append((F.cosine_similarity(first.ret.float(), second.ret.float()) > SAME_BY_RET).float().cpu())
    return torch.cat(parts)


def _sameness(first: Tokens, second: Tokens, grid: int) -> torch.Tensor:
    patches, others = (F.normalize(tokens.patches.float(), dim=2) for tokens in (first, second))
    cosines = (patches @ others.transpose(1, 2)).clamp(min=0)
    here, there = first.positions[:, :, None], second.positions[:, None]
    near = ((here // grid - there // grid).abs() <= _MOVED) & ((here % grid - there % grid).abs() <= _MOVED)
    cosines = cosines * near
    return (cosines.amax(dim=2).mean(dim=1) + cosines.amax(dim=1).mean(dim=1)) / 2


def first_of_same(count: int, duplicates: Sequence[tuple[int, int]], own: int = 0) -> torch.Tensor:
    """The photo of a ranking that stands for each photo: the first of its near duplicates, or itself.

    A photo that is a near duplicate of several goes to the first pair that is given for it; and where the other one is
    a duplicate itself, to what that one folds into. So a burst, in which each photo is like the next, is one.

    Args:
        count: photos in the ranking. duplicates: places of a photo and an earlier one, in the order of the first.
        own: the first so many photos stand for themselves, whatever they look like.

    Returns (count,) int64: places in the ranking, from 0. No place is later than the photo's own.
    """
    firsts = np.arange(count)
    for photo, earlier in duplicates:
        if photo >= own and firsts[photo] == photo:
            firsts[photo] = firsts[earlier]
    return torch.from_numpy(firsts)

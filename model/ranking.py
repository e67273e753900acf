"""Ranks a whole gallery: diffusion, estimates, liked photos, words, groups, near duplicates.

All of it is based on one fact: the similarity of two photos is far more certain than that of a sketch and a photo.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine import Floats, Method, Numbers, Tokens, sigmoid, unit

# The score of a pair judges one photo alone, by a few strokes. Diffusion on the affinity graph of the gallery (Donoser
# and Bischof, CVPR 2013) lets photos that look alike correct each other's scores. These are averaged as *support*,
# between 0 and 1: far photos would rule a mean of distances or logits. Photos that were not scored get an estimate,
# since a line predicts scores from distances of [Ret], and photos that look alike deviate from it alike.

# [Ret] distances d are averaged as exp(-d^2 / RET_WIDTH), so that far photos have no weight.
RET_WIDTH = 0.2
# Scores of things s, the means of cosines in regions, have the support exp((s - best) / THINGS_WIDTH).
THINGS_WIDTH = 0.1
# If place or colours of one thing count, support changes by the factor e for each 1 / FITTING of the score of its
# best region. For 140 coloured things in ordinary photos, drawn with the nearest of the page's pens, 4 brought 0.34 of
# their photos into the first 20, with a precision@10 of 0.848, and 2 to 8 differed little; without colours, 0.17 and
# 0.871.
FITTING = 4.0
# Fused scores f are averaged as exp((f - best) / FUSED_WIDTH), because their range depends on the fusion weight.
FUSED_WIDTH = 2.0
_LEAST = np.finfo(np.float32).tiny


def support_of(scores: Floats, best: float, method: Method) -> Floats:
    """Turns scores by ``method``, of any shape, into support in [0, 1]. best: the sketch's highest score."""
    if method == "ret":
        support: Floats = np.exp(-(scores**2) / np.float32(RET_WIDTH))
    elif method == "rn":
        support = scores
    else:
        support = np.exp((scores - np.float32(best)) / np.float32(_width(method)))
    return support


def _width(method: Method) -> float:
    return THINGS_WIDTH if method == "things" else FUSED_WIDTH


def scores_of(support: Floats, best: float, method: Method) -> Floats:
    """Turns support into scores by ``method``: the inverse of ``support_of``."""
    logarithms = np.log(np.maximum(support, _LEAST))
    if method == "ret":
        return -np.sqrt(np.maximum(-np.float32(RET_WIDTH) * logarithms, 0))
    return support if method == "rn" else best + np.float32(_width(method)) * logarithms


def best_matches(sketch: Tokens, photos: Tokens) -> Floats:
    """Sums the cosines of each patch token's best match on the other side, for one sketch and p photos: (p,) float32.

    It is the relation network's sum with equal weights and without cross-attention, at a fraction of its cost: enough
    to choose the photos to score by the network.
    """
    strokes, (count, tokens, width) = unit(sketch.patches[0]), photos.patches.shape
    patches = np.ascontiguousarray(photos.patches, np.float32).reshape(-1, width)
    lengths = np.sqrt(np.einsum("pd,pd->p", patches, patches))
    kernel = ((patches @ strokes.T) / np.maximum(lengths, _LEAST)[:, None]).reshape(count, tokens, -1)
    found: Floats = kernel.max(axis=1).sum(axis=1) + kernel.max(axis=2).sum(axis=1)
    return found


def promise(distances: Floats, matched: Numbers, matches: Floats) -> Floats:
    """Adds distances of [Ret] and ``best_matches``, each in units of its spread over the photos that were matched.

    distances: (p,), negated. matched: (m,) indices of these photos, at least one; matches: (m,), theirs. The others
    count as if their matches were the mean. Returns (p,) float32, higher is better.
    """
    among = distances[matched]
    total: Floats = (distances - among.mean()) / max(float(among.std()), _SAME)
    total[matched] += (matches - matches.mean()) / max(float(matches.std()), _SAME)
    return total


# Below this distance to the mean a photo has no direction.
_SAME = 1e-6
# Steps of the diffusion. Neighbours of neighbours still help; with many more steps, classes mix.
ROUNDS = 3
# The number of a sketch's best photos that are diffused. It bounds the cost: SHORTLIST x SHORTLIST cosines a sketch.
SHORTLIST = 1000


def diffused(scores: Floats, ret: NDArray[np.floating], threshold: float, method: Method) -> Floats:
    """Diffuses scores over the photos, for each sketch separately.

    Let r_i be the normalised [Ret] of photo i minus the mean of all, normalised again, and
    A_ij = max(0, r_i . r_j - threshold). Each round replaces the scores f by D^-1 A f, where D holds the row sums of A.
    The mean is subtracted because features shared by all photos do not make two of them similar. Relation scores are
    averaged as they are; distances and fused scores are mapped into (0, 1], averaged, and mapped back.

    Only the SHORTLIST best photos of a sketch are diffused. The others follow in their previous order, their scores
    capped at the lowest of the shortlist.

    scores: (s, p) by ``method``. ret: (p, d). Returns (s, p) float32, in the range of ``method``.
    """
    after = np.empty(scores.shape, np.float32)
    for row, of_sketch in enumerate(scores):
        order = np.argsort(-of_sketch, kind="stable")
        first, rest = order[:SHORTLIST], order[SHORTLIST:]
        directions = centred(ret[first])
        weights = np.maximum(directions @ directions.T - np.float32(threshold), 0)
        np.fill_diagonal(weights, 1 - threshold)
        sums = weights.sum(axis=1)
        best = float(of_sketch[first[0]])
        support = support_of(of_sketch[first], best, method)
        for _ in range(ROUNDS):
            support = (weights @ support) / sums
        after[row, first] = scores_of(support, best, method)
        if len(rest):
            after[row, rest] = np.minimum(of_sketch[rest], after[row, first].min())
    return after


def centred(ret: NDArray[np.floating], mean: Floats | None = None) -> Floats:
    """Centres retrieval tokens (p, d): normalised, minus ``mean``, or their own, normalised again, (p, d) float32.

    A photo that is exactly the mean gets zeros, so it is similar to no photo.
    """
    directions = unit(ret)
    rests = directions - (directions.mean(axis=0) if mean is None else mean)
    return unit(rests * (np.linalg.norm(rests, axis=1, keepdims=True) > _SAME))


# Diffusion makes photos that look alike equal, so that the drawn one is lost among others of its kind. Of the first
# photos of a diffused ranking, those that look alike are put in order by the logit of the diffused score plus WITHIN
# times that of the relation score. docs/quality.md has its accuracy, docs/research/searching.md the alternatives.
REORDERED = 100
WITHIN = 0.25


def reordered(diffused: Floats, relation: Floats, ret: NDArray[np.floating], threshold: float) -> Floats:
    """Reorders the first photos of diffused rankings within their kind, using their relation scores as well.

    diffused, relation: (s, p) in 0..1, after and before diffusion. ret, threshold: as in the diffusion. Returns (s, p)
    float32: of the REORDERED highest scores of each row, those of one group (``groups_of``) change places; all others
    stay.
    """
    after, mean = diffused.copy(), unit(ret).mean(axis=0)
    for row, (now, before) in enumerate(zip(diffused, relation, strict=True)):
        first = np.argsort(-now, kind="stable")[:REORDERED]
        groups = groups_of(ret[first], mean, threshold)
        by_both = _logits(now[first]) + WITHIN * _logits(before[first])
        # The same photos group by group, those of a group as they stand, and by both.
        standing, wanted = np.argsort(groups, kind="stable"), np.lexsort((-by_both, groups))
        after[row, first[wanted]] = now[first[standing]]
    return after


def _logits(scores: Floats) -> NDArray[np.float64]:
    inside = np.clip(scores.astype(np.float64), MARGIN, 1 - MARGIN)
    return np.asarray(np.log(inside / (1 - inside)))


# Weight of a deviation of zero in the mean of the scored photos' deviations, so that a photo that is similar to none of
# them stays on the line. On validation classes, values from 0.1 to 2 differ by less than chance.
PRIOR_WEIGHT = 0.5
# Relation scores are clipped this far from 0 and 1, so that their logits are finite: float32 rounds some to 0 or 1.
MARGIN = 1e-7


def estimated(
    scores: Floats,
    known: NDArray[np.bool_],
    distances: Floats,
    ret: NDArray[np.floating],
    threshold: float,
    method: Method,
) -> Floats:
    """Estimates the unknown scores, and returns them with the unchanged known scores.

    Let x_j be the logits of the known relation scores (or the known fused scores themselves), l the least-squares line
    from the distances d_j to the x_j, made level if it would rise, and A_ij the affinity of two photos as in the
    diffusion. Then the estimate of photo i is

        x_i = l(d_i) + sum_j A_ij (x_j - l(d_j)) / (PRIOR_WEIGHT + sum_j A_ij), over the known j.

    Args:
        scores: (p,) float32 by ``method``, "rn" or "fused"; only those of known photos are read.
        known: (p,) bool, the scored photos.
        distances: (p,) distances of the photos' [Ret] to the sketch's, or the negative of their ``promise``.
        ret, threshold: as in the diffusion.

    Returns (p,) float32. If no photo is known, the estimates rank the photos by distance.
    """
    d = distances.astype(np.float64)
    x = _logits(scores[known]) if method == "rn" else scores[known].astype(np.float64)
    line = _line(d[known], x, d)
    directions, deviations = centred(ret), (x - line[known]).astype(np.float32)
    affinity = np.maximum(directions[~known] @ directions[known].T - np.float32(threshold), 0)
    # For so few columns, the product of matrix and vector on some processors warns of invalid numbers without reason.
    estimates = line[~known] + (affinity * deviations).sum(axis=1) / (PRIOR_WEIGHT + affinity.sum(axis=1))
    every = scores.astype(np.float32)
    every[~known] = sigmoid(estimates) if method == "rn" else estimates
    return every


def _line(distances: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluates the least-squares line ``at``; level if it would rise, and -at without points."""
    if not len(values):
        return -at
    dx, dy = distances - distances.mean(), values - values.mean()
    variation = (dx**2).sum()
    slope = min(0.0, (dx * dy).sum() / variation) if variation > 0 else 0.0
    line: NDArray[np.float64] = values.mean() + slope * (at - distances.mean())
    return line


# Photos that a person likes, or that show the thing of a word, dominate a ranking: the sketch only orders photos near
# them. WIDTH and WORD_LEAD were chosen on 500 ordinary photos, with sketches that were not trained on. With WIDTH from
# 3 to 6, or WORD_LEAD from 0.7 to 0.9, sketch and word together find more than each alone; with 2 and 0.7 the word
# alone found more. This was measured by the vocabulary; scores by CLIP are logits, too.

# Weight of the mean of the liked photos beside the sketch, whose weight is 1. From 2 on, the value hardly matters on
# validation classes. Mixing in the relation network's scores made rankings worse there.
PULL = 4.0
# The share of the support, after diffusion, from the likeness to the most similar liked photo. The mean of
# several liked photos may be similar to none of them.
LEAD = 0.5
# The share of the support that comes from the word.
WORD_LEAD = 0.8
# A photo's support by a word falls by the factor e if its score is this much below the best photo's.
WIDTH = 4.0
# The number of photos, the best by the word, whose [Ret] represents a word if there is neither sketch nor liked photo.
# On ordinary photos, 1 to 10 of them found more than the word's scores alone, and differed by less than chance.
EXAMPLES = 5
# The best of many photos reaches a higher score by chance than the best of _FITS_FROM, so that a word's threshold grows
# with the photos. With three photos of what a word names among 980 others, none of 159 words, people among them, was
# below _FITS_HARDLY in any of 30 draws; without such photos a twelfth were. Of the 1,120 words with photos, a fifth are
# below it in ordinary photos.
_FITS_FROM = 50
_FITS_SLOPE = 2 / 3
_FITS_HARDLY, _FITS_SURELY = -1.5, 2.0


def rocchio(sketch: Floats | None, liked: Floats) -> Floats:
    """Computes the [Ret] of a query with liked photos, after Rocchio (1971).

    It is the sum of the sketch's normalised [Ret] and PULL times the mean [Ret] of the liked photos, normalised.

    sketch: (1, d) or None. liked: (l, d), at least one. Returns (1, d) float32.
    """
    photos = unit(unit(liked).mean(axis=0, keepdims=True))
    return photos if sketch is None else unit(unit(sketch) + np.float32(PULL) * photos)


def fitting(scores: Floats, fits: Floats, method: Method) -> Floats:
    """Prefers the photos whose regions fit a thing's place and colours best, in the range of ``method``.

    scores: (m,) by ``method``, m at least 1. fits: (m,), scores of the best regions (``model.things.sought``).
    """
    best = float(scores.max())
    support = support_of(scores, best, method) * np.exp(np.float32(FITTING) * (fits - fits.max()))
    return scores_of(support, best, method) + np.float32(0)


def mix_support(scores: Floats, likeness: Floats) -> Floats:
    """Mixes likeness to liked photos (p,) into scores (p,) by "ret", p at least 1. Likeness below 0 counts as 0."""
    return _lead(scores, np.maximum(likeness, 0), LEAD, "ret")


def mix_word_support(scores: Floats, words: Floats, method: Method) -> Floats:
    """Mixes a word's support (m,) into photos' scores (m,) by ``method``, in the range of ``method``."""
    return _lead(scores, words, WORD_LEAD, method) if len(scores) else scores


def _lead(scores: Floats, other: Floats, lead: float, method: Method) -> Floats:
    """Mixes support: if s_i is photo i's, divided by the highest, its new support is (1 - lead) s_i + lead o_i."""
    shares = np.float32(1 - lead) * shares_of(scores, method) + np.float32(lead) * other
    # Adding 0 turns -0 into 0.
    return scores_of(shares, float(scores.max()), method) + np.float32(0)


def shares_of(scores: Floats, method: Method) -> Floats:
    """Computes the support of each score as a share of the highest support, (m,) in 0..1. m is at least 1."""
    support = support_of(scores, float(scores.max()), method)
    shares: Floats = support / np.maximum(support.max(), _LEAST)
    return shares


def word_support(scores: Floats, best: float) -> Floats:
    """Computes the support of photos by a word: exp((score - best) / WIDTH), (p,) in 0..1.

    scores: (p,) logits. best: the highest score of a photo that can be found; others may be above it.
    """
    support: Floats = np.exp(np.minimum(scores - np.float32(best), 0) / np.float32(WIDTH))
    return support


def fits(best: float, chances: int) -> bool | None:
    """Returns whether any photo is likely to show the things of words; None if uncertain.

    best: the highest score of the photos by the words. chances: the number of photos times the number of words.
    """
    if not chances:
        return False
    surplus = best - _FITS_SLOPE * math.log(chances / _FITS_FROM)
    return True if surplus >= _FITS_SURELY else False if surplus < _FITS_HARDLY else None


# For a drawn dog, twenty pigs may come just before the dogs, so a page of groups shows each thing once.
# Cosine of two centred [Ret] above which two photos are of one group. In a gallery of 12,890 photos of everything, with
# sketches of classes held back from the network, the right group was among the first 20 groups for 0.81 of the
# sketches, and a right photo among the first 20 photos for 0.64.
ALIKE = 0.45


def groups_of(ret: NDArray[np.floating], mean: Floats, threshold: float = ALIKE) -> Numbers:
    """Finds the group of look-alikes of each photo of a ranking.

    Let r_i be the normalised [Ret] of the i-th photo minus ``mean``, normalised again. Down the ranking, photo i joins
    the first group whose first photo j has r_i . r_j above the threshold. If there is none, it begins a group.

    ret: (p, d), best first. mean: (d,) of the normalised [Ret] of the whole gallery; that of the ranking itself would
    hide what its photos have in common. Returns (p,) int64: groups are numbered from 0, in the order of first photos.
    """
    directions = centred(ret, mean)
    alike = directions @ directions.T > threshold
    groups = np.full(len(directions), -1, np.int64)
    # Group by group is the same as photo by photo: the next photo without a group is like no first photo before it.
    for first in range(len(directions)):
        if groups[first] < 0:
            joining = alike[first] & (groups < 0)
            # A photo that is exactly the mean is not even similar to itself, but still begins a group.
            joining[first] = True
            groups[joining] = groups.max() + 1
    return groups


def likeness_to(examples: Floats, ret: NDArray[np.floating], mean: Floats) -> Floats:
    """Computes the similarity of photos to the most similar of some examples: (p,) float32, -1 to 1."""
    likeness: Floats = likenesses(examples, ret, mean).max(axis=1)
    return likeness


def likenesses(examples: Floats, ret: NDArray[np.floating], mean: Floats) -> Floats:
    """Computes the similarity of photos (p, d) to examples (e, d), by the cosines of centred [Ret]: (p, e), -1 to 1."""
    likeness: Floats = np.clip(centred(ret, mean) @ centred(examples, mean).T, -1, 1)
    return likeness


# [Ret] represents the content of a picture: two photos of one thing may be nearer than a photo and its reduced copy. So
# [Ret] only finds pairs to compare; patch tokens and their places decide whether they are one picture.
#
# Cosine of two [Ret] above which a pair is compared, and how many earlier photos each photo is compared with. A copy is
# nearer to its original than 98 of 100 other photos are.
LOOK = 0.8
LOOKED_AT = 3
# From this sameness on, two pictures count as one. To be measured again for a new default network.
SAME = 0.82
# Networks without patch tokens compare the cosine of [Ret] with this: far fewer copies are found.
SAME_BY_RET = 0.97
# The number of cells of the patch grid that a detail may have moved.
_MOVED = 1
# Pairs whose tokens are compared at a time: some 30 MiB with the default network.
_PAIRS = 128


def pairs_to_compare(ret: NDArray[np.floating]) -> Numbers:
    """Chooses the pairs of a ranking that may be near duplicates: each photo with the most similar photos before it.

    ret: (p, d), best first. Returns (m, 2) int64: ranks, from 0, of a photo and of an earlier one, with cosines above
    LOOK: by the first, then by falling cosine.
    """
    directions = unit(ret)
    cosines = np.tril(directions @ directions.T, k=-1)
    count = min(LOOKED_AT, len(cosines))
    earlier = np.argpartition(-cosines, count - 1, axis=1)[:, :count] if count else np.empty((0, 0), np.int64)
    falling = np.argsort(-np.take_along_axis(cosines, earlier, axis=1), axis=1, kind="stable")
    earlier = np.take_along_axis(earlier, falling, axis=1)
    later, column = np.nonzero(np.take_along_axis(cosines, earlier, axis=1) > LOOK)
    return np.stack([later, earlier[later, column]], axis=1)


def sameness(tokens: Tokens, pairs: Numbers, grid: int) -> Floats:
    """Measures how much of the pictures of each pair is the same, in the same places: (m,) float32, 0 to 1.

    A patch token gets its highest cosine with the other picture's tokens at most one cell of the patch grid away, or 0.
    The result is the mean over each picture's tokens, averaged over both pictures. Without patch tokens it is 1 if the
    cosine of [Ret] is above SAME_BY_RET, else 0.

    pairs: (m, 2) int64, the photos that are compared. grid: cells in a row of the patch grid.
    """
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _PAIRS):
        batch = pairs[start : start + _PAIRS]
        first, second = tokens[batch[:, 0]], tokens[batch[:, 1]]
        if tokens.positions.shape[1]:
            parts.append(_sameness(first, second, grid))
        else:
            cosines = (unit(first.ret) * unit(second.ret)).sum(axis=1)
            parts.append((cosines > SAME_BY_RET).astype(np.float32))
    return np.concatenate(parts)


def _sameness(first: Tokens, second: Tokens, grid: int) -> Floats:
    cosines = np.maximum(unit(first.patches) @ unit(second.patches).swapaxes(1, 2), 0)
    here, there = first.positions[:, :, None].astype(np.int64), second.positions[:, None].astype(np.int64)
    near = (abs(here // grid - there // grid) <= _MOVED) & (abs(here % grid - there % grid) <= _MOVED)
    cosines *= near
    mean: Floats = (cosines.max(axis=2).mean(axis=1) + cosines.max(axis=1).mean(axis=1)) / 2
    return mean


def first_of_same(count: int, duplicates: Sequence[tuple[int, int]], own: int = 0) -> Numbers:
    """Finds the photo of a ranking that represents each photo: the first of its near duplicates, or itself.

    A photo follows its first pair; if the other photo of this pair is itself a duplicate, the same photo stands for
    both. So a burst, in which each photo is like the next, is one.

    duplicates: ranks of a photo and an earlier photo, in the order of the first. own: this many first photos stand for
    themselves. Returns (count,) int64: ranks, from 0.
    """
    firsts = np.arange(count)
    for photo, earlier in duplicates:
        if photo >= own and firsts[photo] == photo:
            firsts[photo] = firsts[earlier]
    return firsts

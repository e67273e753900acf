"""Ranks a whole gallery: diffusion, estimates, liked photos, words, groups, near duplicates.

All of it is based on one fact: the similarity of two photos is far more certain than that of a sketch and a photo.
Constants were chosen on validation classes, by `python -m training evaluate --split val` with the protocols of
docs/research/searching.md, which has the alternatives.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine import Floats, Method, Numbers, Tokens, sigmoid, unit, widen

# Scores are averaged as *support*, between 0 and 1, since far photos would rule a mean of distances or logits: [Ret]
# distances d as exp(-d^2 / RET_WIDTH), scores s of things and fused ones as exp((s - best) / width).
RET_WIDTH, THINGS_WIDTH, FUSED_WIDTH = 0.2, 0.1, 2.0
#: The least score of a photo, beside which others still have an order.
LEAST = float(np.finfo(np.float32).tiny)
# Below this distance to the mean a photo has no direction.
_SAME = 1e-6
# Steps of the diffusion. Neighbours of neighbours still help; with many more steps, classes mix.
ROUNDS = 3
# The number of a sketch's best photos that are diffused. It bounds the cost: SHORTLIST x SHORTLIST cosines a sketch.
SHORTLIST = 1000
# Weight of a deviation of zero in the mean of the scored photos' deviations, so that a photo that is similar to none of
# them stays on the line.
PRIOR_WEIGHT = 0.5
# Relation scores are clipped this far from 0 and 1, so that their logits are finite: float32 rounds some to 0 or 1.
MARGIN = 1e-7


def support_of(scores: Floats, best: float, method: Method) -> Floats:
    """Turns scores by ``method``, of any shape, into support in [0, 1]. best: the sketch's highest score."""
    if method == "ret":
        return np.asarray(np.exp(-(scores**2) / np.float32(RET_WIDTH)))
    if method == "rn":
        return scores
    return np.asarray(np.exp((scores - np.float32(best)) / np.float32(_width(method))))


def _width(method: Method) -> float:
    return THINGS_WIDTH if method == "things" else FUSED_WIDTH


def scores_of(support: Floats, best: float, method: Method) -> Floats:
    """Turns support into scores by ``method``: the inverse of ``support_of``."""
    logarithms = np.log(np.maximum(support, LEAST))
    if method == "ret":
        return -np.sqrt(np.maximum(-np.float32(RET_WIDTH) * logarithms, 0))
    return support if method == "rn" else best + np.float32(_width(method)) * logarithms


def best_matches(sketch: Tokens, photos: Tokens) -> Floats:
    """Sums the cosines of each patch token's best match on the other side, for one sketch and p photos: (p,) float32.

    It is the relation network's sum with equal weights and without cross-attention, at a fraction of its cost: enough
    to choose the photos to score by the network. Tokens may have any scale and be whole numbers.
    """
    strokes, (count, tokens, width) = unit(sketch.patches[0]), photos.patches.shape
    # Token by token: NumPy finds the largest of rows faster than the largest in each.
    patches = widen(np.ascontiguousarray(photos.patches.swapaxes(0, 1))).reshape(-1, width)
    lengths = np.sqrt(np.einsum("pd,pd->p", patches, patches))
    kernel = np.ascontiguousarray((patches @ strokes.T).T)
    kernel /= np.maximum(lengths, LEAST)
    sums: Floats = kernel.max(axis=0).reshape(tokens, count).sum(axis=0)
    sums += kernel.reshape(-1, tokens, count).max(axis=1).sum(axis=0)
    return sums


def promise(distances: Floats, matched: Numbers, matches: Floats) -> Floats:
    """Adds distances of [Ret] and ``best_matches``, each in units of its spread over the photos that were matched.

    distances: (p,), negated. matched: (m,) indices of these photos, at least one; matches: (m,), theirs. The others
    count as if their matches were the mean. Returns (p,) float32, higher is better.
    """
    among = distances[matched]
    total: Floats = (distances - among.mean()) / max(float(among.std()), _SAME)
    total[matched] += (matches - matches.mean()) / max(float(matches.std()), _SAME)
    return total


def affinities(ret: NDArray[np.floating], threshold: float) -> Floats:
    """Computes max(0, r_i . r_j - threshold) for all pairs of photos (p, d), (p, p): see ``diffuse``."""
    directions = centre(ret)
    weights: Floats = directions @ directions.T
    weights -= np.float32(threshold)
    np.maximum(weights, np.float32(0), out=weights)
    np.fill_diagonal(weights, 1 - threshold)
    return weights


def diffuse(
    scores: Floats, ret: NDArray[np.floating], threshold: float, method: Method, weights: Floats | None = None
) -> Floats:
    """Diffuses scores over the photos of a sketch, so that photos that look alike correct each other's scores.

    It is diffusion on the affinity graph of the gallery (Donoser and Bischof, CVPR 2013), for each sketch separately.

    Let r_i be the normalised [Ret] of photo i minus the mean of all, normalised again, and
    A_ij = max(0, r_i . r_j - threshold). Each round replaces the scores f by D^-1 A f, where D holds the row sums of A.
    The mean is subtracted because features shared by all photos do not make two of them similar. Relation scores are
    averaged as they are; distances and fused scores are mapped into (0, 1], averaged, and mapped back.

    Only the SHORTLIST best photos of a sketch are diffused. The others follow in their previous order, their scores
    capped at the lowest of the shortlist.

    scores: (s, p) by ``method``. ret: (p, d). weights: (p, p), the ``affinities`` of at most SHORTLIST photos, if they
    are known. Returns (s, p) float32, in the range of ``method``.
    """
    after, few = np.empty(scores.shape, np.float32), scores.shape[1] <= SHORTLIST
    if few and weights is None:
        weights = affinities(ret, threshold)
    for row, of_sketch in enumerate(scores):
        order = np.arange(len(of_sketch)) if few else np.argsort(-of_sketch, kind="stable")
        first, rest = order[:SHORTLIST], order[SHORTLIST:]
        if weights is None or not few:
            weights = affinities(ret[first], threshold)
        # A product takes less time than a sum.
        sums = weights @ np.ones(len(first), np.float32)
        best = float(of_sketch[first].max(initial=-np.inf))
        support = support_of(of_sketch[first], best, method)
        for _ in range(ROUNDS):
            support = (weights @ support) / sums
        after[row, first] = scores_of(support, best, method)
        if len(rest):
            after[row, rest] = np.minimum(of_sketch[rest], after[row, first].min())
    return after


def centre(ret: NDArray[np.floating], mean: Floats | None = None) -> Floats:
    """Centres [Ret] (p, d): normalised, minus ``mean`` or their own, normalised again, float32; zeros at the mean."""
    rests = unit(ret)
    rests -= rests.mean(axis=0) if mean is None else mean
    lengths = np.sqrt(np.einsum("pd,pd->p", rests, rests))
    rests *= np.where(lengths > _SAME, 1 / np.maximum(lengths, np.float32(_SAME)), np.float32(0))[:, None]
    return rests


def logits(scores: Floats, least: float = MARGIN) -> NDArray[np.float64]:
    """Computes the logits of scores in 0..1, of any shape; they are finite. least: lower scores count as this."""
    inside = np.clip(scores.astype(np.float64), least, 1 - MARGIN)
    return np.asarray(np.log(inside / (1 - inside)))


def estimate(
    scores: Floats,
    known: NDArray[np.bool_],
    distances: Floats,
    ret: NDArray[np.floating],
    threshold: float,
    method: Method,
    weights: Floats | None = None,
) -> Floats:
    """Estimates the unknown scores, and returns them with the unchanged known scores.

    Let x_j be the logits of the known relation scores (or the known fused scores themselves), l the least-squares line
    from the distances d_j to the x_j, made level if it would rise, and A_ij the affinity of two photos as in the
    diffusion. Then the estimate of photo i is

        x_i = l(d_i) + sum_j A_ij (x_j - l(d_j)) / (PRIOR_WEIGHT + sum_j A_ij), over the known j.

    scores: (p,) float32 by ``method``, "rn" or "fused"; only those of known photos are read.
    known: (p,) bool, the scored photos.
    distances: (p,) distances of the photos' [Ret] to the sketch's, or the negative of their ``promise``.
    ret, threshold, weights: as in the diffusion.

    Returns (p,) float32. If no photo is known, the estimates rank the photos by distance.
    """
    d = distances.astype(np.float64)
    x = logits(scores[known]) if method == "rn" else scores[known].astype(np.float64)
    line = _line(d[known], x, d)
    deviations = (x - line[known]).astype(np.float32)
    if weights is None:
        directions = centre(ret)
        affinity = np.maximum(directions[~known] @ directions[known].T - np.float32(threshold), 0)
    else:
        affinity = weights[np.ix_(~known, known)]
    # For so few columns, the product of matrix and vector on some processors warns of invalid numbers without reason.
    estimates = line[~known] + (affinity * deviations).sum(axis=1) / (PRIOR_WEIGHT + affinity.sum(axis=1))
    completed = scores.astype(np.float32)
    completed[~known] = sigmoid(estimates) if method == "rn" else estimates
    return completed


def _line(distances: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluates the least-squares line ``at``; level if it would rise, and -at without points."""
    if not len(values):
        return -at
    dx, dy = distances - distances.mean(), values - values.mean()
    variation = (dx**2).sum()
    slope = min(0.0, (dx * dy).sum() / variation) if variation > 0 else 0.0
    return np.asarray(values.mean() + slope * (at - distances.mean()))


# What is wanted beside a drawing is evidence, log-odds that add up; one drawn thing is scored by ``search.terms``.
# Likes, words and dislikes say which kind: their evidence is 0 for all photos of the kind, so that the drawing orders
# these, and falls for the others. With l_i how like photo i is to the liked ones (of several things, its diffused
# kinship), w_i its score by the word, u_ij its likeness to the j-th unwanted photo, and f_i how well its regions and
# boxes fit what words name, the evidence is
#
#     LIKED min(0, l_i - KIND) + NAMED min(0, w_i - max w + SPREAD) - UNLIKED (sum_j max(0, u_ij - APART))^2
#     + FITTING (f_i - max f).
#
# Without a drawing NAMED is 1, and SPREAD 0.
LIKED, KIND = 16.0, 0.85
# Of several things, a liked photo may show only some: LIKED counts as a sixteenth, from KIND_OF_SEVERAL on.
LIKED_OF_SEVERAL, KIND_OF_SEVERAL = 1.0, 0.7
NAMED, SPREAD = 0.25, 5.0
UNLIKED, APART = 0.3, 0.2
FITTING = 8.0
# Log-odds are divided by SOFT before photos share the probability of a reading, since they are surer than they are
# right. Photos share BY_RANK of it by rank, since log-odds of things and of one thing have different scales.
# `training evaluate --split val` measures both, by `--protocol scenes` and `--protocol fine-grained`.
SOFT, BY_RANK = 3.0, 0.25
# The best photos by a drawing, of which scores before diffusion say which was drawn.
FIRST = 40
# The number of photos, the best by the word, whose [Ret] represents a word if there is neither sketch nor liked photo.
EXAMPLES = 5


def weigh(scores: Floats, evidence: NDArray[np.floating], method: Method) -> Floats:
    """Adds evidence, log-odds, to scores of the same shape by ``method``, and returns scores in its range."""
    if method == "rn":
        # Scores may have been weighed before, and keep their order however low that made them.
        weighed = sigmoid(logits(scores, LEAST) + evidence)
    elif method == "ret":
        weighed = -np.sqrt(np.maximum(scores**2 - np.float32(RET_WIDTH) * evidence, 0))
    else:
        weighed = scores + np.float32(_width(method)) * evidence
    # Adding 0 turns -0 into 0.
    return weighed.astype(np.float32) + np.float32(0)


def log_odds(scores: Floats, method: Method, least: float = MARGIN) -> NDArray[np.floating]:
    """Returns what ``weigh`` adds evidence to, in the shape of the scores: logits, or logarithms of support.

    least: as for ``logits``; LEAST for scores that were weighed.
    """
    if method == "rn":
        return logits(scores, least)
    if method == "ret":
        return np.asarray(-(scores**2) / np.float32(RET_WIDTH))
    return np.asarray((scores - scores.max(initial=-np.inf)) / np.float32(_width(method)))


def mix(odds: NDArray[np.floating], probable: NDArray[np.floating]) -> NDArray[np.float64]:
    """Computes how probably each photo is the one sought, (p,), if r readings are ``probable``, (r,), each.

    odds: (r, p), by each reading; -inf for photos that it lacks. A photo's share of a reading is 1 - BY_RANK of the
    softmax of odds / SOFT, plus BY_RANK of 1 / rank over the sum of all. So a reading that no photo fits moves few, but
    the k-th photo by a reading of probability q has at least q BY_RANK / (k sum_i 1/i), however flat its scores are.
    """
    likely = np.exp((odds - odds.max(axis=1, keepdims=True)) / SOFT)
    ranks = 1 + np.argsort(np.argsort(-odds, axis=1, kind="stable"), axis=1)
    inverse = np.isfinite(odds) / ranks
    soft, ranked = (of / of.sum(axis=1, keepdims=True) for of in (likely, inverse))
    return np.asarray(probable @ ((1 - BY_RANK) * soft + BY_RANK * ranked))


def above_first(before: Floats) -> NDArray[np.float64]:
    """Returns by how much the log-odds of scores (..., p) exceed those of the FIRST-th highest, at least 0."""
    odds = logits(before)
    least = np.sort(odds, axis=-1)[..., -FIRST:][..., :1]
    return np.maximum(odds - least, 0)


def evidence_of_likes(likeness: Floats, *, drawn: bool = True, several: bool = False) -> Floats:
    """Returns the evidence of liked photos, (p,), for photos of this likeness to them, or diffused kinship, at most 1.

    drawn: False if no drawing orders the photos of the kind, so that likeness does. several: whether it has several
    things.
    """
    weight, least = (LIKED_OF_SEVERAL, KIND_OF_SEVERAL) if several else (LIKED, KIND)
    evidence: Floats = np.float32(weight) * np.minimum(likeness - np.float32(least), 0)
    return evidence if drawn else evidence + likeness - 1


def diffuse_kinship(likeness: Floats, ret: NDArray[np.floating], threshold: float) -> Floats:
    """Diffuses the kinship (p,) of photos with liked ones; returns it as a share of the highest, (p,) in 0..1."""
    spread: Floats = diffuse(np.maximum(likeness, 0)[None], ret, threshold, "rn")[0]
    spread /= np.maximum(spread.max(initial=0), LEAST)
    return spread


def evidence_of_words(scores: Floats, *, drawn: bool = True) -> Floats:
    """Returns the evidence of words, (p,), for photos with these scores by them, logits. drawn: as for likes."""
    evidence: Floats = np.minimum(scores - scores.max(initial=-np.inf) + np.float32(drawn * SPREAD), 0)
    return np.float32(NAMED) * evidence if drawn else evidence


def evidence_of_dislikes(likeness: Floats) -> Floats:
    """Returns the evidence of u unwanted photos, (p,), for photos of this likeness to each, (p, u).

    It grows with the square of their number, because photos of which several are unwanted share what is unwanted.
    """
    shared: Floats = np.maximum(likeness - np.float32(APART), 0).sum(axis=1)
    return np.float32(-UNLIKED) * shared**2


def evidence_of_fits(fits: Floats) -> Floats:
    """Returns the evidence, (p,), of the regions and boxes that fit what words name best, with these scores."""
    return np.asarray(np.float32(FITTING) * (fits - fits.max(initial=-np.inf)))


def shares_of(scores: Floats, method: Method) -> Floats:
    """Computes the support of each score as a share of the highest support, (m,) in 0..1. m is at least 1."""
    support = support_of(scores, float(scores.max()), method)
    return np.asarray(support / np.maximum(support.max(), LEAST))


def falling(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the sequence nearest to values (m,) that never rises: neighbours that would are set to their mean."""
    levels = list[tuple[float, int]]()
    for value in values.tolist():
        total, count = value, 1
        while levels and levels[-1][0] * count <= total * levels[-1][1]:
            before, of = levels.pop()
            total, count = total + before, count + of
        levels.append((total, count))
    return np.repeat([total / count for total, count in levels], [count for _, count in levels])


# Cosine of two centred [Ret] above which two photos are of one group.
ALIKE = 0.45


def groups_of(ret: NDArray[np.floating], mean: Floats) -> Numbers:
    """Finds the group of look-alikes of each photo of a ranking.

    Let r_i be the normalised [Ret] of the i-th photo minus ``mean``, normalised again. Down the ranking, photo i joins
    the first group whose first photo j has r_i . r_j above ALIKE. If there is none, it begins a group.

    ret: (p, d), best first. mean: (d,) of the normalised [Ret] of the whole gallery; that of the ranking itself would
    hide what its photos have in common. Returns (p,) int64: groups are numbered from 0, in the order of first photos.
    """
    directions = centre(ret, mean)
    alike = directions @ directions.T > ALIKE
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
    return np.asarray(likenesses(examples, ret, mean).max(axis=1))


def likenesses(examples: Floats, ret: NDArray[np.floating], mean: Floats) -> Floats:
    """Computes the similarity of photos (p, d) to examples (e, d), by the cosines of centred [Ret]: (p, e), -1 to 1."""
    return np.asarray(np.clip(centre(ret, mean) @ centre(examples, mean).T, -1, 1))


# Cosine of two [Ret] above which a pair is compared, since it cannot reach SAME below, and how many earlier photos each
# photo is compared with. Two photos of one thing may be nearer than a photo and its reduced copy, so that patch tokens
# and their places decide, too.
LOOK, LOOKED_AT = 0.91, 3
# From this sameness on, two pictures count as one, and the share of [Ret] in it. A new network needs other values.
SAME, SAME_RET = 0.93, 0.8
# The same for shots that a camera numbered one after the other, such as a burst or exposures of one picture. Of 40
# photos at -2, -1.3, 1.3 and 2 stops, 1.0, 1.0, 0.95 and 0.75 are above this, and 0.93, 0.97, 0.7 and 0.15 above SAME;
# of 2,843 pairs of photos that look alike, mostly of one landmark each, 149.
SAME_SHOT, _NEXT = 0.84, 2
# Cameras number by four digits and more, the shots of a burst by two: p01.png and p02.png are a person's.
_NUMBERED = re.compile(r"(.*?(?:burst\D*|[^/\d](?=\d{4})))(\d{2,9})(\D*\.\w+)", re.DOTALL | re.IGNORECASE)
# Networks without patch tokens compare the cosine of [Ret] with this: far fewer copies are found.
SAME_BY_RET = 0.97
# The number of cells of the patch grid that a detail may have moved.
_MOVED = 1
# Photos that are compared with those before them, and pairs whose tokens are compared, at a time: some 30 MiB.
_ROWS, _PAIRS = 256, 128


def pairs_to_compare(ret: NDArray[np.floating]) -> Numbers:
    """Chooses the pairs of a ranking that may be near duplicates: each photo with the most similar photos before it.

    ret: (p, d), best first. Returns (m, 2) int64: ranks, from 0, of a photo and of an earlier one, with cosines above
    LOOK: by the first, then by falling cosine.
    """
    directions, parts = unit(ret), [(np.empty((2, 0), np.int64), np.empty(0, np.float32))]
    # Half of all pairs is enough, and rows whose cosines stay in the cache.
    for start in range(0, len(directions), _ROWS):
        cosines = directions[start : start + _ROWS] @ directions[: start + _ROWS].T
        above = np.flatnonzero(cosines > LOOK)
        rows, columns = np.divmod(above, cosines.shape[1])
        parts.append((np.stack([rows + start, columns]), cosines.ravel()[above]))
    (later, earlier), near = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
    later, earlier, near = (column[earlier < later] for column in (later, earlier, near))
    order = np.lexsort((earlier, -near, later))
    later, earlier = later[order], earlier[order]
    nearest = np.arange(len(later)) - np.searchsorted(later, later) < LOOKED_AT
    return np.asarray(np.stack([later, earlier], axis=1)[nearest])


def consecutive(paths: Sequence[Sequence[str]]) -> Numbers:
    """Finds shots that their camera numbered one after the other: DSC_0100.JPG and DSC_0102.JPG of one folder.

    paths: of each photo of a ranking. Returns (m, 2) int64: ranks, from 0, of a photo and of an earlier one.
    """
    matches = [(rank, _NUMBERED.fullmatch(path)) for rank, own in enumerate(paths) for path in own]
    ranks = {(match[1], match[3], int(match[2])): rank for rank, match in matches if match}
    pairs = {
        (max(rank, other), min(rank, other))
        for (start, end, number), rank in ranks.items()
        for other in (ranks.get((start, end, number + step), rank) for step in range(1, _NEXT + 1))
        if other != rank
    }
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def sameness(tokens: Tokens, pairs: Numbers, grid: int) -> Floats:
    """Measures how much of the pictures of each pair is the same, in the same places: (m,) float32, 0 to 1.

    A patch token gets its highest cosine with the other picture's tokens at most one cell of the patch grid away, or 0.
    The result is the mean over each picture's tokens, averaged over both pictures, and with the weight SAME_RET with
    the cosine of [Ret]. Without patch tokens it is 1 if that is above SAME_BY_RET, else 0.

    pairs: (m, 2) int64, the photos that are compared. grid: cells in a row of the patch grid.
    """
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _PAIRS):
        batch = pairs[start : start + _PAIRS]
        first, second = tokens[batch[:, 0]], tokens[batch[:, 1]]
        cosines = (unit(first.ret) * unit(second.ret)).sum(axis=1)
        if tokens.positions.shape[1]:
            parts.append(SAME_RET * np.maximum(cosines, 0) + (1 - SAME_RET) * _matching(first, second, grid))
        else:
            parts.append((cosines > SAME_BY_RET).astype(np.float32))
    return np.concatenate(parts)


def _matching(first: Tokens, second: Tokens, grid: int) -> Floats:
    cosines = np.maximum(unit(first.patches) @ unit(second.patches).swapaxes(1, 2), 0)
    here, there = first.positions[:, :, None].astype(np.int64), second.positions[:, None].astype(np.int64)
    near = (abs(here // grid - there // grid) <= _MOVED) & (abs(here % grid - there % grid) <= _MOVED)
    cosines *= near
    return np.asarray((cosines.max(axis=2).mean(axis=1) + cosines.max(axis=1).mean(axis=1)) / 2)


def first_of_same(count: int, duplicates: Sequence[tuple[int, int]], liked: int = 0) -> Numbers:
    """Finds the photo of a ranking that represents each photo: the first of its near duplicates, or itself.

    A photo follows its first pair; if the other photo of this pair is itself a duplicate, the same photo stands for
    both. So a burst, in which each photo is like the next, is one.

    duplicates: ranks of a photo and an earlier photo, in the order of the first. liked: so many first photos stand
    for themselves. Returns (count,) int64: ranks, from 0.
    """
    firsts = np.arange(count)
    for photo, earlier in duplicates:
        if photo >= liked and firsts[photo] == photo:
            firsts[photo] = firsts[earlier]
    return firsts

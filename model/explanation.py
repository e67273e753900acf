"""Explains why a photo matches a sketch or another photo: attention, correspondences, influential pairs."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.answers import InfluentialPair
from sketch_search.model.engine import Aligned, Engine, Floats, Numbers, Observed, SelfAttention, Tokens, sigmoid, unit

# A token whose cosine to another token of its photo is above this is not of its place: networks keep a few for
# themselves, in fixed corners, which are the same in every photo and would match best of all.
_REPEATED = 0.97
# What the best patch for a part of a sketch is chosen by, beside the cosine (docs/quality.md): the weight of its
# relevance, how like the sketch the square of so many patches a side around it is; the weight of the squared distance
# of places, each in the spread of its picture; and the share of patches, the most relevant, that have this spread.
_RELEVANCE, _AROUND = 2.0, 3
_PLACE, _THING = 0.05, 1 / 8


@dataclass(frozen=True)
class PairExplanation:
    """The explanation of one pair. Cells of the patch grid are counted row by row from the top left.

    If two photos are compared, the first one has the sketch's place.

    grid: patches along one side. sketch, photo: self-attention and selection of each. sketch_cells, photo_cells: (n_s,)
        and (n_p,) int64, the cells of the patches that are compared. aligned: cross-attention between the tokens of
        both; None without it, and for two photos. correspondence: (n_s, n_p) float32 in [-1, 1], cosines of patch
        tokens after cross-attention (eq. 8); of two photos see ``compare_photos``. preference: (n_s, n_p) float32,
        added to the cosines where the best photo patch is chosen: more if [Ret] of the sketch is like the local [Ret]
        of the patch and its neighbours, less if the patch lies elsewhere in the thing than the sketch's patch. None if
        local [Ret] is not known. influence: the pairs of tokens that the relation score rests on most, strongest first.
        relation_score: in (0, 1); None for two photos, and if the relation network is untrained. ret_distance: distance
        of the [Ret] tokens; see ``Matcher.ret_distances`` for its range.
    """

    grid: int
    sketch: SelfAttention
    photo: SelfAttention
    sketch_cells: Numbers
    photo_cells: Numbers
    correspondence: Floats
    ret_distance: float
    preference: Floats | None = None
    influence: tuple[InfluentialPair, ...] = ()
    relation_score: float | None = None
    aligned: Aligned | None = None

    @property
    def _preferred(self) -> Floats:
        """What the best photo patches are chosen by, (n_s, n_p)."""
        return self.correspondence if self.preference is None else self.correspondence + self.preference

    def best_of(self, cell: int, count: int) -> list[int]:
        """Lists the photo cells that match a cell of the sketch best; none for a cell that is not compared."""
        rows = np.flatnonzero(self.sketch_cells == cell)
        best = np.argsort(-self._preferred[rows], axis=1, kind="stable")[:, :count]
        return [int(self.photo_cells[column]) for column in best.ravel().tolist()]

    def matches(self) -> list[tuple[int, int, float]]:
        """Lists each sketch patch's best photo patch: (sketch cell, photo cell, cosine), strongest first."""
        if not self.correspondence.size:
            return []
        best = self._preferred.argmax(axis=1)
        cosines = self.correspondence[np.arange(len(best)), best]
        order = np.argsort(-cosines, kind="stable").tolist()
        return [(int(self.sketch_cells[i]), int(self.photo_cells[best[i]]), float(cosines[i])) for i in order]


def compare(
    engine: Engine, sketch: Observed, photo: Observed, ret_distance: float, relation_score: float | None
) -> PairExplanation:
    """Explains a pair of observed pictures by all of their patches. Networks with one vector compare none."""
    all_tokens = photo.tokens if photo.everything is None else photo.everything
    aligned = engine.align(sketch.tokens, all_tokens)
    patches = (sketch.tokens.patches[0], all_tokens.patches[0]) if aligned is None else (aligned.sketch, aligned.photo)
    influence = () if relation_score is None else influential_pairs(engine, sketch.tokens, photo.tokens, relation_score)
    return PairExplanation(
        grid=engine.config.grid,
        sketch=sketch.attention,
        photo=photo.attention,
        sketch_cells=sketch.tokens.positions[0],
        photo_cells=all_tokens.positions[0] if aligned is None else aligned.photo_cells,
        correspondence=unit(patches[0]) @ unit(patches[1]).T,
        preference=None if photo.local is None else _preference(sketch.tokens, photo.local),
        influence=influence,
        relation_score=relation_score,
        ret_distance=ret_distance,
        aligned=aligned,
    )


def _preference(sketch: Tokens, local: Floats) -> Floats:
    """Computes how much sketch patches prefer photo patches: (n_s, n) float32. local: (n, d), local [Ret]."""
    # The mean cosine of each patch and its neighbours to the whole sketch: fewer neighbours at the border.
    side, border = math.isqrt(len(local)), _AROUND // 2
    maps = np.stack([(local @ unit(sketch.ret[0])).reshape(side, side), np.ones((side, side), np.float32)])
    padded = np.pad(maps, ((0, 0), (border, border), (border, border)))
    sums = np.lib.stride_tricks.sliding_window_view(padded, (_AROUND, _AROUND), axis=(1, 2)).sum(axis=(3, 4))
    relevance = (sums[0] / sums[1]).ravel()
    drawn, shown = _places(sketch.positions[0], side), _places(np.arange(len(local)), side)
    least = np.quantile(relevance, 1 - _THING)
    here = _spread_out(drawn, np.ones(len(drawn)))
    there = _spread_out(shown, np.maximum(relevance - least, 0) + np.float64(1e-9))
    apart = ((here[:, None] - there) ** 2).sum(axis=2)
    return np.asarray(_RELEVANCE * relevance - _PLACE * apart, np.float32)


def _places(cells: Numbers, side: int) -> NDArray[np.float64]:
    return np.stack([cells % side, cells // side], axis=1).astype(np.float64)


def _spread_out(places: NDArray[np.float64], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scales places (n, 2) so that their weighted mean is 0, and their spread 1 along each side."""
    mean = np.average(places, axis=0, weights=weights)
    spread = np.sqrt(np.average((places - mean) ** 2, axis=0, weights=weights))
    # Cells in a single row or column have no spread along the other side.
    return (places - mean) / np.maximum(spread, 1)


def compare_photos(liked: Observed, photo: Observed) -> PairExplanation:
    """Explains why photos are similar. Patches are compared as encoded, minus their mean, without repeated ones."""
    first, second = (unit(seen.tokens.ret[0]) for seen in (liked, photo))
    patches, others = liked.tokens.patches[0], photo.tokens.patches[0]
    here, there = _distinct(patches), _distinct(others)
    mean = np.concatenate([patches, others]).mean(axis=0) if len(patches) + len(others) else np.float32(0)
    return PairExplanation(
        grid=liked.attention.blocks.shape[-1],
        sketch=liked.attention,
        photo=photo.attention,
        sketch_cells=liked.tokens.positions[0, here],
        photo_cells=photo.tokens.positions[0, there],
        correspondence=unit(patches[here] - mean) @ unit(others[there] - mean).T,
        ret_distance=float(np.linalg.norm(first - second)),
    )


def _distinct(patches: Floats) -> Numbers:
    """Finds the patch tokens (n, d) that are not repeated among them, (m,); all of them if all are repeated."""
    if not len(patches):
        return np.empty(0, np.int64)
    cosines = unit(patches) @ unit(patches).T
    np.fill_diagonal(cosines, -1)
    distinct = cosines.max(axis=1) <= _REPEATED
    return np.flatnonzero(distinct if distinct.any() else ~distinct)


STRONGEST = 10


def influential_pairs(
    engine: Engine, sketch: Tokens, photo: Tokens, relation_score: float
) -> tuple[InfluentialPair, ...]:
    """Finds the STRONGEST pairs, strongest first; none without a relation network or for released checkpoints.

    The drop of a pair is (score - score without it) / score, at most 1, negative if it lowers the score.
    """
    aligned = engine.align(sketch, photo)
    lost = None if aligned is None else aligned.lost if aligned.matching is None else lost_logits(aligned)
    if aligned is None or lost is None:
        return ()
    # A float64 score that rounds to 1 has no finite logit.
    score = np.clip(np.float64(relation_score), 1e-12, 1 - 1e-12)
    drops = 1 - sigmoid(np.log(score / (1 - score)) - lost) / score
    strongest = np.argsort(-drops, axis=None, kind="stable")[:STRONGEST]
    cells, places = sketch.positions[0].tolist(), aligned.photo_cells.tolist()
    rows = (divmod(index, len(places)) for index in strongest.tolist())
    return tuple(InfluentialPair(cells[s], places[p], float(drops[s, p])) for s, p in rows if drops[s, p] > 0)


def lost_logits(aligned: Aligned) -> Floats:
    """Computes how much the logit falls without each pair, (n_s, n_p): only if best of its row or column."""
    matching = aligned.matching
    assert matching is not None
    kernel = unit(aligned.sketch) @ unit(aligned.photo).T
    by_row, by_column = _lost(kernel, matching.sketch_worth), _lost(kernel.T, matching.photo_worth)
    return np.float32(matching.scale / 2) * (by_row + by_column.T)


def _lost(kernel: Floats, worth: Floats) -> Floats:
    """Computes how much the weighted sum of row maxima falls without each entry, (n, m). worth: (n,), of the rows."""
    if kernel.shape[1] == 1:
        # There is no next best match: a removed entry counts as 0.
        return worth[:, None] * kernel
    rows, best = np.arange(len(kernel)), kernel.argmax(axis=1)
    second, highest = np.partition(kernel, -2, axis=1)[:, -2:].T
    lost = np.zeros_like(kernel)
    lost[rows, best] = worth * (highest - second)
    return lost

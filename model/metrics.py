"""Computes the measures of zero-shot sketch-based image retrieval: mean average precision, precision, recall, ranks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIGURES = ("map_all", "map_200", "precision_100", "precision_200")
_TOP = 200
_SHORT_TOP = 100
# Rows with this many numbers together are ranked at once. Memory holds about ten arrays of this size.
_CHUNK_ELEMENTS = 1 << 21


def category_metrics(scores: ArrayLike, relevant: ArrayLike) -> dict[str, float]:
    """Computes the means of the figures of `query_metrics` over the queries that have relevant photos, by name."""
    return {name: float(column.mean()) for name, column in query_metrics(scores, relevant).items()}


def query_metrics(scores: ArrayLike, relevant: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Computes FIGURES of the m queries that have relevant photos, (m,) in 0..1: mAP@all, mAP@200, P@100, P@200.

    Scores (q, g) are of any real type, higher is better; relevant is (q, g) bool. Photos of equal score stay in gallery
    order. With R relevant photos and P(i) the precision of the first i: average precision is the sum of max P(j),
    j >= i, over the ranks i of relevant photos, divided by R (interpolated: the area under the monotone
    precision-recall curve); average precision at 200 sees the first 200 alone, divided by min(200, R); precision at k
    is P(min(k, R)).

    Raises ValueError if the shapes differ or are not (q, g), a score is NaN, or no query has a relevant photo.
    """
    scores, relevant, queries, rows = _checked(scores, relevant)
    figures = np.empty((len(FIGURES), len(queries)), np.float64)
    for start in range(0, len(queries), rows):
        chunk = queries[start : start + rows]
        figures[:, start : start + rows] = _figures(scores[chunk], relevant[chunk])
    return dict(zip(FIGURES, figures, strict=True))


def first_page(scores: ArrayLike, relevant: ArrayLike, k: int = 10) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes figures of the results that a person sees first: precision@k and hit@k, (m,) each, as `query_metrics`.

    Precision is over min(k, R), R the relevant photos, so that it can reach 1; a hit is 1 if the first k results hold a
    relevant photo, else 0. Arguments and errors are those of `query_metrics`.
    """
    scores, relevant, queries, rows = _checked(scores, relevant)
    found = np.empty(len(queries))
    for start in range(0, len(queries), rows):
        chunk = queries[start : start + rows]
        found[start : start + rows] = _ranked(scores[chunk], relevant[chunk])[0][:, :k].sum(axis=1)
    return found / np.minimum(k, relevant[queries].sum(axis=1)), (found > 0).astype(np.float64)


def target_ranks(
    scores: ArrayLike, targets: NDArray[np.int64], among: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Finds the rank, from 0, of the one photo that each query looks for: (q,) int64.

    Args:
        scores: (q, g) of any real type, higher is better; photos of equal score stay in gallery order.
        targets: (q,) columns of the photos looked for.
        among: (q, g) the photos that each query is ranked against, with its target; None for all photos.

    Raises ValueError if the shapes differ, a score is NaN, or a target is not among its photos.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or (among is not None and among.shape != scores.shape):
        raise ValueError(f"scores {scores.shape}, targets {targets.shape} and photos ranked do not belong together")
    ranks = np.empty(len(scores), np.int64)
    for row, (values, target) in enumerate(zip(scores, targets, strict=True)):
        if np.isnan(values).any():
            raise ValueError("a score is NaN: such a photo has no rank")
        before = values > values[target]
        before[:target] |= values[:target] == values[target]
        if among is not None:
            if not among[row, target]:
                raise ValueError(f"query {row} looks for a photo that it is not ranked against")
            before &= among[row]
        ranks[row] = before.sum()
    return ranks


def _checked(
    scores: ArrayLike, relevant: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.bool_], NDArray[np.int64], int]:
    """Checks both, and returns them as arrays, with the rows that have relevant photos and how many to rank at once."""
    scores, relevant = np.asarray(scores), np.asarray(relevant, dtype=np.bool_)
    if scores.ndim != 2 or scores.shape != relevant.shape:
        raise ValueError(
            f"scores and relevant must both be (queries, gallery), not {scores.shape} and {relevant.shape}"
        )
    queries = np.flatnonzero(relevant.any(axis=1)).astype(np.int64)
    if not len(queries):
        raise ValueError("no query has a relevant photo: check the labels of queries and gallery")
    rows = max(1, _CHUNK_ELEMENTS // scores.shape[1])
    if any(np.isnan(scores[start : start + rows]).any() for start in range(0, len(scores), rows)):
        raise ValueError("a score is NaN: such a photo has no rank")
    return scores, relevant, queries, rows


def _ranked(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Returns (q, g) arrays: whether the photo at each rank is relevant, and the precision of all photos up to it."""
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    return hits, np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)


def _figures(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Computes FIGURES, (4, q), of scores (q, g), each row of which has a relevant photo."""
    hits, precision = _ranked(scores, relevant)
    total = hits.sum(axis=1)

    def average(top: int) -> NDArray[np.float64]:
        # The highest precision at each rank or beyond it.
        interpolated = np.maximum.accumulate(precision[:, :top][:, ::-1], axis=1)[:, ::-1]
        area: NDArray[np.float64] = (interpolated * hits[:, :top]).sum(axis=1)
        area /= np.minimum(top, total)
        return area

    def at(top: int) -> NDArray[np.float64]:
        last = np.minimum(top, total) - 1
        return np.take_along_axis(precision, last[:, None], axis=1)[:, 0]

    return np.stack([average(hits.shape[1]), average(_TOP), at(_SHORT_TOP), at(_TOP)])

"""How good a ranking is, as zero-shot sketch-based image retrieval measures it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_TOP = 200
_SHORT_TOP = 100
# Rows are ranked a few at a time: about ten arrays of this many numbers are alive at once.
_CHUNK_ELEMENTS = 1 << 21


@dataclass(frozen=True)
class CategoryMetrics:
    """Means over the queries that have relevant photos, each in 0..1: see `query_metrics`."""

    map_all: float
    map_200: float
    precision_100: float
    precision_200: float


@dataclass(frozen=True)
class QueryMetrics:
    """The same for each query, arrays of one length m: `queries` (m,) int64 tells which rows of the scores they are.

    The figures are (m,) float64 in 0..1. Queries without relevant photos have no place here.
    """

    queries: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    average_precision_200: NDArray[np.float64]
    precision_100: NDArray[np.float64]
    precision_200: NDArray[np.float64]


def category_metrics(scores: ArrayLike, relevant: ArrayLike) -> CategoryMetrics:
    """mAP@all, mAP@200, Prec@100 and Prec@200 of scores (q, g), higher is better, and relevant (q, g) bool.

    Errors are those of `query_metrics`.
    """
    each = query_metrics(scores, relevant)
    return CategoryMetrics(
        map_all=float(each.average_precision.mean()),
        map_200=float(each.average_precision_200.mean()),
        precision_100=float(each.precision_100.mean()),
        precision_200=float(each.precision_200.mean()),
    )


def query_metrics(scores: ArrayLike, relevant: ArrayLike) -> QueryMetrics:
    """The figures of each query; scores (q, g) of any real type, higher is better, relevant (q, g) bool.

    Photos of equal score stay in gallery order. With R relevant photos and P(i) the precision of the first i:
    average precision is the sum of max P(j), j >= i, over the ranks i of relevant photos, divided by R (interpolated:
    the area under the monotone precision-recall curve); average precision at 200 sees the first 200 alone, divided by
    min(200, R); precision at k is P(min(k, R)).

    Raises ValueError where the shapes differ or are not (q, g), a score is NaN, or no query has a relevant photo.
    """
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
    figures = np.empty((4, len(queries)), np.float64)
    for start in range(0, len(queries), rows):
        chunk = queries[start : start + rows]
        figures[:, start : start + rows] = _figures(scores[chunk].astype(np.float64), relevant[chunk])
    return QueryMetrics(queries, *figures)


def _figures(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(4, q): average precision, the same at 200, precision at 100 and at 200, of (q, g) with a relevant one a row."""
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    found = np.cumsum(hits, axis=1)
    total = found[:, -1]
    precision = found / np.arange(1, hits.shape[1] + 1)

    def average(top: int) -> NDArray[np.float64]:
        monotone = np.maximum.accumulate(precision[:, :top][:, ::-1], axis=1)[:, ::-1]
        area: NDArray[np.float64] = (monotone * hits[:, :top]).sum(axis=1) / np.minimum(top, total)
        return area

    def at(top: int) -> NDArray[np.float64]:
        last = np.minimum(top, total) - 1
        return np.take_along_axis(precision, last[:, None], axis=1)[:, 0]

    return np.stack([average(hits.shape[1]), average(_TOP), at(_SHORT_TOP), at(_TOP)])

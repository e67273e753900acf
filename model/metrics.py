"""Computes the measures of zero-shot sketch-based image retrieval: mean average precision, precision, recall, ranks."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIGURES = ("map_all", "map_200", "precision_100", "precision_200")
PLAIN_FIGURES = tuple(f"plain_{name}" for name in FIGURES)


def category_metrics(scores: ArrayLike, relevant: ArrayLike) -> dict[str, float]:
    """Computes the means of the figures of `query_metrics` over the queries that have relevant photos, by name."""
    return {name: float(column.mean()) for name, column in query_metrics(scores, relevant).items()}


def query_metrics(scores: ArrayLike, relevant: ArrayLike, *, plain: bool = False) -> dict[str, NDArray[np.float64]]:
    """Computes FIGURES of the m queries that have relevant photos, (m,) in 0..1: mAP@all, mAP@200, P@100, P@200.

    Scores (q, g) are of any real type, higher is better; relevant is (q, g) bool. Photos of equal score stay in gallery
    order. With R relevant photos and P(i) the precision of the first i: average precision is the sum of max P(j),
    j >= i, over the ranks i of relevant photos, divided by R (interpolated: the area under the monotone
    precision-recall curve); average precision at 200 sees the first 200 alone, divided by min(200, R); precision at k
    is P(min(k, R)). All of this is as the papers' released code has it.

    plain: adds PLAIN_FIGURES, which textbooks define: average precision sums P(i), and precision at k is P(k).

    Raises ValueError if the shapes differ or are not (q, g), a score is NaN, or no query has a relevant photo.
    """
    figures = np.array([_figures(hits) for hits in _rank_hits(scores, relevant)])
    names = FIGURES + PLAIN_FIGURES if plain else FIGURES
    return dict(zip(names, figures.T, strict=False))


def first_page(
    scores: ArrayLike, relevant: ArrayLike, k: int = 10, *, plain: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Computes "precision_10", over min(k, R), and "hit_10" (m,), as ``query_metrics``; plain: also over k."""
    correct, all_relevant = np.array([(hits[:k].sum(), hits.sum()) for hits in _rank_hits(scores, relevant)], float).T
    figures = {f"precision_{k}": correct / np.minimum(k, all_relevant), f"hit_{k}": (correct > 0).astype(np.float64)}
    return figures | ({f"plain_precision_{k}": correct / k} if plain else {})


def target_ranks(
    scores: ArrayLike, targets: NDArray[np.int64], among: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Finds the rank, from 0, of the one photo that each query looks for: (q,) int64.

    scores: (q, g), ties in gallery order. targets: (q,) columns. among: (q, g) photos to rank against; None for all.
    Raises ValueError if the shapes differ, a score is NaN, or a target is not among its photos.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or (among is not None and among.shape != scores.shape):
        raise ValueError(f"scores {scores.shape}, targets {targets.shape} and photos ranked do not match")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN, so its photo has no rank")
    rows, columns = np.arange(len(scores)), np.arange(scores.shape[1])
    target_scores = scores[rows, targets][:, None]
    before = (scores > target_scores) | ((scores == target_scores) & (columns < targets[:, None]))
    if among is not None:
        if len(missing := np.flatnonzero(~among[rows, targets])):
            raise ValueError(f"the photo that query {missing[0]} looks for is not ranked")
        before &= among
    return np.asarray(before.sum(axis=1))


def _rank_hits(scores: ArrayLike, relevant: ArrayLike) -> Iterator[NDArray[np.bool_]]:
    """Yields for each query that has relevant photos whether the photo at each rank is relevant, (g,)."""
    scores, relevant = np.asarray(scores), np.asarray(relevant, dtype=np.bool_)
    if scores.ndim != 2 or scores.shape != relevant.shape:
        shapes = f"{scores.shape} and {relevant.shape}"
        raise ValueError(f"scores and relevant must both be (queries, gallery), not {shapes}")
    if not relevant.any():
        raise ValueError("no query has a relevant photo: check the labels of queries and gallery")
    for values, relevance in zip(scores, relevant, strict=True):
        if np.isnan(values).any():
            raise ValueError("a score is NaN, so its photo has no rank")
        if relevance.any():
            yield relevance[np.argsort(-values.astype(np.float64), kind="stable")]


def _figures(hits: NDArray[np.bool_]) -> list[float]:
    total = hits.sum()
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)

    def average(top: int, *, interpolated: bool) -> float:
        # The highest precision at each rank or beyond it.
        seen = np.maximum.accumulate(precision[:top][::-1])[::-1] if interpolated else precision[:top]
        return float(seen[hits[:top]].sum() / min(top, total))

    whole, tops = len(hits), (100, 200)
    return [
        *(average(top, interpolated=True) for top in (whole, 200)),
        *(float(precision[min(top, total) - 1]) for top in tops),
        *(average(top, interpolated=False) for top in (whole, 200)),
        *(float(hits[:top].sum() / top) for top in tops),
    ]

"""The figures of one search's list of results, as a server gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ListMetrics:
    """The figures of the first k results of one search, each in 0..1; see `list_metrics`."""

    average_precision: float
    average_precision_of_found: float
    precision: float
    recall: float


def list_metrics(hits: ArrayLike, relevant: int, k: int) -> ListMetrics:
    """The figures of one search's results: hits (n,) bool by rank, of which the first k count; missing are no hits.

    With R = ``relevant`` photos in the gallery: average precision is interpolated as in `model.metrics.query_metrics`,
    and divided by min(k, R), or, as in the paper of the two-stage system, by the relevant photos among the k, which
    hides lost ones; precision is over k, recall over R.

    Raises ValueError where there are more hits than relevant photos, or k is below 1.
    """
    first = np.asarray(hits, dtype=np.bool_)[:k]
    found = int(first.sum())
    if k < 1 or found > relevant:
        raise ValueError(f"{found} of {relevant} relevant photos among the first {k}: counts do not fit")
    if not found:
        return ListMetrics(0.0, 0.0, 0.0, 0.0)
    precision = first.cumsum() / np.arange(1, len(first) + 1)
    # The highest precision at each rank or beyond it.
    area = float((np.maximum.accumulate(precision[::-1])[::-1] * first).sum())
    return ListMetrics(area / min(k, relevant), area / found, found / k, found / relevant)

"""Confidence intervals of means over queries, by the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# What is resampled: single queries, or whole classes with all their queries. Queries of one class look for the same
# photos, so intervals over queries are too narrow for statements about other classes; those over classes hold for them.
Resampled = Literal["queries", "classes"]
RESAMPLED: tuple[Resampled, ...] = ("queries", "classes")
RESAMPLES = 2000
LEVEL = 0.95
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A mean over queries, and the interval that holds LEVEL of its resamples."""

    value: float
    low: float
    high: float


def bootstrap(
    values: NDArray[np.float64], groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, ...]:
    """Percentile intervals of the means of the columns of ``values`` (q, m) over its q rows.

    Every column is resampled with the same rows, so the interval of a column of differences is that of paired
    differences. The same seed gives the same rows.

    Args:
        groups: a name for each row; groups are then drawn instead of rows, each with all its rows. None for rows.
        resamples: their number, at least 1.

    Raises:
        ValueError: there are no rows, or the groups do not fit them.
    """
    if values.ndim != 2 or not len(values) or (groups is not None and len(groups) != len(values)):
        raise ValueError(f"a bootstrap needs (rows, columns) and one group a row, not {values.shape}")
    numbers = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.bincount(numbers).astype(np.float64)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, numbers, values)
    generator = np.random.default_rng(seed)
    share = np.full(len(counts), 1 / len(counts))
    means = np.empty((resamples, values.shape[1]))
    rows = max(1, _CHUNK_ELEMENTS // len(counts))
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        times = generator.multinomial(len(counts), share, size=len(part)).astype(np.float64)
        part[:] = times @ sums / (times @ counts)[:, None]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return tuple(Interval(*map(float, row)) for row in zip(values.mean(axis=0), low, high, strict=True))

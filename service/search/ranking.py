"""The order of results: falling scores, equal ones by id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
# Photos of a gallery by their rows in it: one cluster after the other, in each cluster by id.
Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
NO_ROWS: Rows = np.empty(0, np.int64)


def best_first(ids: Ids, scores: Scores, count: int | None = None) -> NDArray[np.int64]:
    """The indices in the order of falling score, the first ``count`` of them; equal scores by id."""
    if count is None or count >= len(scores):
        return np.lexsort((ids, -scores))
    # Sorting all of a large gallery would cost more than scoring it by [Ret].
    least = np.partition(scores, -count)[-count]
    chosen = np.flatnonzero(scores >= least)
    return chosen[np.lexsort((ids[chosen], -scores[chosen]))][:count]

"""Folding: near duplicates among the best photos of a ranking become one result (``model.ranking``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from model.ranking import SAME, first_of_same, pairs_to_compare, sameness
from service.search.gallery import Gallery
from service.search.ranking import Rows

# How many of the best photos are folded. All pages are cut out of this one folding, so that what a result stands for
# does not change from page to page; beyond them every photo is a result of its own. It takes some milliseconds.
FOLDED = 1000

Order = NDArray[np.int64]


@dataclass(frozen=True)
class Folded:
    """The order of a ranking whose near duplicates are folded.

    Attributes:
        order: (m,) the indices of the photos that are results, in the order of the ranking.
        copies: for the index of each photo that stands for others, their indices, in the order of the ranking; None
            where nothing was to be folded.
    """

    order: Order
    copies: Mapping[int, Order] | None = field(default=None)


def fold(scorer: Gallery, rows: Rows, order: Order, liked: int) -> Folded:
    """Fold the near duplicates of a ranking.

    Args:
        rows: (p,) the photos. order: (p,) their indices, best first.
        liked: how many of them, the first, are liked: each is a result of its own, since somebody named it.
    """
    best = order[:FOLDED]
    firsts = first_of_same(len(best), _duplicates(scorer, rows[best]), own=liked).numpy()
    results = firsts == np.arange(len(best))
    copies = {int(best[first]): best[(firsts == first) & ~results] for first in np.unique(firsts[~results]).tolist()}
    return Folded(np.concatenate([best[results], order[FOLDED:]]), copies)


def _duplicates(scorer: Gallery, rows: Rows) -> list[tuple[int, int]]:
    """The pairs of these photos that are near duplicates, as places among them."""
    pairs = pairs_to_compare(scorer.ret(rows))
    # Tokens are read once, by row, which is how they lie in the files.
    needed, numbers = np.unique(rows[pairs.numpy()], return_inverse=True)
    if not len(needed):
        return []
    same = sameness(scorer.tokens(needed), torch.from_numpy(numbers.reshape(-1, 2)), scorer.grid) > SAME
    return [(photo, earlier) for photo, earlier in pairs[same].tolist()]

"""A ranking as it is shown: near duplicates as one result, and photos that look alike as one kind."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.engine import Floats
from model.ranking import (
    SAME,
    ScoredBy,
    first_of_same,
    groups_of,
    pairs_to_compare,
    sameness,
    support_of,
)
from service.gallery import Candidates, Gallery, Ids, Scores, best_first, interleaved

# The number of best photos that are folded. All pages are cut out of this one folding, so that what a result stands for
# does not change from page to page; beyond them every photo is a result of its own. It takes some milliseconds.
FOLDED = 1000

# Kinds in the order of their first photos: each the indices of its photos among those that are grouped, ascending.
Groups: TypeAlias = tuple[NDArray[np.int64], ...]

# The share of the support of all grouped photos that makes a kind one that is far ahead. It was chosen on sketches of
# validation classes, by a network that had not seen them: of what the ranking offers (the gap between the best photos
# of the first kinds, how many of the first 20 photos are of the first kind, how far all scores fall), this share told
# best whether the first kind is the one that was drawn. From 0.3 on, it is in most cases; below, in fewer than half.
FAR_AHEAD = 0.3


def fold(gallery: Gallery, ranking: Candidates, liked: int, grid: int) -> NDArray[np.int64]:
    """Finds the near duplicates in a ranking.

    Args:
        ranking: in the order of the ranking.
        liked: how many of its photos, the first, are liked: each is a result of its own, since somebody named it.
        grid: cells in a row of the network's patch grid.

    Returns:
        (m,): for each photo the place of the one that stands for it, or its own (see ``Candidates.firsts``).
    """
    firsts = np.arange(len(ranking))
    best = ranking[np.arange(min(len(ranking), FOLDED))]
    firsts[:FOLDED] = first_of_same(len(best), _duplicates(gallery, best, grid), own=liked)
    return firsts


def _duplicates(gallery: Gallery, ranking: Candidates, grid: int) -> list[tuple[int, int]]:
    """Returns the pairs of these photos that are near duplicates, as places among them."""
    pairs = pairs_to_compare(ranking.vectors)
    # Tokens are read once, by row.
    needed, numbers = np.unique(ranking.rows[pairs], return_inverse=True)
    if not len(needed):
        return []
    same = sameness(gallery.tokens(needed), numbers.reshape(-1, 2), grid) > SAME
    return [(photo, earlier) for photo, earlier in pairs[same].tolist()]


def grouped_places(ids: Ids, undiffused: Scores | None, count: int) -> NDArray[np.int64]:
    """Chooses the photos of a ranking that are grouped into kinds: (m,) their places, from 0, at most ``count``.

    They interleave the ranking before diffusion with the final one. Diffusion gathers photos of one kind: it makes
    a page of photos better, but kinds that few photos are of fall behind. Of 50 sketches of validation classes in a
    gallery of everything, the right kind was among the first 20 for 0.80 by the ranking, 0.88 by the scores before
    diffusion, 0.86 by turns; of 146 sketches of trained classes for 0.83, 0.85, 0.87.

    Args:
        ids: (p,) of the photos, in the order of the ranking. undiffused: (p,) their scores before diffusion; None
            where the ranking alone counts.
    """
    ranking = np.arange(min(len(ids), count))
    if undiffused is None:
        return ranking
    return interleaved([best_first(ids, undiffused, count)[: len(ranking)], ranking])[:count]


def is_far_ahead(scores: Scores, groups: Groups, method: ScoredBy) -> bool:
    """Returns True if the kind of the best photo is far ahead of the others.

    It is if at least FAR_AHEAD of the support (``model.ranking.support``) of all grouped photos is its photos'. Both
    count: how many of them there are, and how much better they are. Nothing is ahead where there are no photos.

    Args:
        scores: (m,) of the grouped photos by ``method``, in any order. groups: as ``group_alike`` gives them.
    """
    if not len(scores):
        return False
    best = int(scores.argmax())
    support = support_of(scores, float(scores[best]), method)
    kind = next(group for group in groups if best in group)
    return bool(support[kind].sum() >= FAR_AHEAD * support.sum())


def group_alike(vectors: NDArray[np.floating], mean: Floats) -> Groups:
    """Returns the kinds of photos with these vectors, (m, d), in a gallery whose vectors have this mean, (d,).

    Each kind is an array of indices of photos, ascending: the first is its best photo. Kinds are in the order of
    their first photos, and every photo is in exactly one.
    """
    kinds = groups_of(vectors, mean)
    # A stable sort keeps the photos of a kind in their order.
    by_kind = np.argsort(kinds, kind="stable")
    sizes = np.bincount(kinds)
    return tuple(np.split(by_kind, np.cumsum(sizes)[:-1])) if len(kinds) else ()

"""One generation of a shard, opened on a machine that has its files."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from indexer import EmbedderEntry, Index, Origin
from model import Matcher
from model.ranking import ALIKE, Likeness
from service.search import Mask, Rows, Scores, Searcher, check_searches

# Photos whose [Ret] is compared at a time: some 12 MiB with the default network.
_BATCH = 1 << 14
# Photos that are looked at first for those that leave with unliked ones, where not all are compared.
_LOOKED_AT = 1 << 12


@dataclass(frozen=True)
class Overview:
    """What the searching process must know of a shard before it can ask it.

    Attributes:
        made: names the generation, also among those of other indexes. generation: its name in the shard's folder.
        ids: (p,) int64 by row. cluster_sizes: (c,) int64. centroid_ret: (c, d) float32.
        ret_sum: (d,) float64, the sum of all normalised [Ret].
        origin: the network that made the rows. embedder: what the photos were clustered by.
    """

    made: str
    generation: str
    ids: NDArray[np.int64]
    cluster_sizes: NDArray[np.int64]
    centroid_ret: NDArray[np.float32]
    ret_sum: NDArray[np.float64]
    origin: Origin
    embedder: EmbedderEntry


class Shard:
    """A generation of a shard, opened.

    Attributes:
        index, matcher: the generation, and the checkpoint that made it.
        scorer: scores of its photos, by their rows in this shard.
    """

    def __init__(self, index: Index, matcher: Matcher) -> None:
        """Raises IndexRefused where the index does not answer as one should."""
        searcher = Searcher(index, matcher)
        check_searches(searcher, matcher.methods, index)
        self.index, self.matcher, self.scorer = index, searcher.matcher, searcher.scorer
        # A question may still use it when another generation is live. So the files are closed when none does.
        weakref.finalize(self, index.close)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.matcher.device

    def overview(self) -> Overview:
        """What must be known of it."""
        count = self.index.photo_count
        return Overview(
            made=self.index.made,
            generation=self.index.generation,
            ids=self.index.ids,
            cluster_sizes=self.index.cluster_sizes,
            centroid_ret=self.index.vectors.centroids,
            ret_sum=self.scorer.gallery_ret.mean.cpu().double().numpy() * count,
            origin=self.index.manifest.origin,
            embedder=self.index.embedder,
        )

    def rows(self, passing: Mask | None) -> Rows:
        """(m,) ascending: those that pass; all for None."""
        return np.arange(self.index.photo_count) if passing is None else np.flatnonzero(passing)

    def likeness(self, examples: torch.Tensor, mean: torch.Tensor, rows: Rows) -> Scores:
        """(m,) float32: how much photos of this shard are like the most similar one of some examples.

        Args:
            examples: (e, d) [Ret], of photos of any shard. mean: (d,) of all photos of all shards.
        """
        found = [np.empty(0, np.float32)]
        for part in _parts(rows):
            of_part = Likeness(self.scorer.ret(part), mean)
            found.append(of_part.to(torch.empty(0, dtype=torch.int64), others=examples).numpy())
        return np.concatenate(found)

    def near_photos(self, examples: torch.Tensor, mean: torch.Tensor, count: int, passing: Mask | None) -> Rows:
        """Rows, ascending, among which are the ``count`` of this shard that look most like one of the examples."""
        directions = F.normalize(examples.float(), dim=1) - mean
        found = self.scorer.gallery_ret.near(directions, count, passing)
        return self.rows(passing) if found is None else found

    def leaving(self, unliked: torch.Tensor, liked: torch.Tensor, mean: torch.Tensor) -> Mask:
        """(p,): the photos that are of the kind of an unliked one, and do not look more like a liked one.

        unliked, liked: (u, d) and (l, d) [Ret], of photos of any shard.
        """
        count, photos = _LOOKED_AT, self.index.photo_count
        while True:
            rows = self.near_photos(unliked, mean, count, None)
            to_unliked = self.likeness(unliked, mean, rows)
            if count >= photos or len(rows) == photos or (to_unliked > ALIKE).sum() < len(rows) // 2:
                break
            count *= 2
        to_liked = self.likeness(liked, mean, rows) if len(liked) else np.full(len(rows), -1, np.float32)
        gone = np.zeros(photos, np.bool_)
        gone[rows] = (to_unliked > ALIKE) & (to_unliked >= to_liked)
        return gone


def _parts(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))

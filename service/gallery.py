"""One generation of an index as searches read it: what each of them needs is in memory, photos' tokens are read."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import Index
from model import Matcher, Tokens
from model.config import Method

# Photos by their place in the gallery: one cluster after the other, in each by id.
Places = NDArray[np.int64]
Ids = NDArray[np.int64]
Scores = NDArray[np.float32]

# Bounds what is copied into memory at a time: 64 photos of the largest network are some 40 MiB. More of the default's
# would leave the cache before they are scored.
BATCH = 64
# The same of [Ret] alone: some 12 MiB with the default network.
RET_BATCH = 1 << 14


class Gallery:
    """The photos and clusters of one generation, scored with the checkpoint that made it.

    Keeps the centroids' halves of the cross-attention, some 200 KB a cluster with the default network, and [Ret] of all
    photos, 768 bytes each.

    Attributes:
        ids: (p,) int64, of the photos by place. sizes: (c,) int64, photos in each cluster.
    """

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self._index = index
        self._matcher = matcher
        self.ids = index.ids
        self._ret = Tokens.of_ret(index.all_ret().to(matcher.device))
        self.sizes = index.cluster_sizes
        self._ends = np.cumsum(self.sizes)
        self._centroids = matcher.project(index.centroids) if len(self.sizes) else index.centroids
        self._centroid_ret = Tokens.of_ret(index.centroid_ret.to(matcher.device))

    def centroid_scores(self, sketch: Tokens, method: Method) -> Scores:
        """(c,) float32: the sketch, a batch of one, against the centroid of every cluster."""
        if not len(self.sizes):
            return np.empty(0, np.float32)
        centroids = self._centroid_ret if method == "ret" else self._centroids
        return self._matcher.scores(sketch, centroids, method)[0].numpy()

    def places(self, cluster: int) -> Places:
        """(m,): all photos of a cluster."""
        end = int(self._ends[cluster])
        return np.arange(end - int(self.sizes[cluster]), end)

    def scores(self, sketch: Tokens, places: Places, method: Method) -> Scores:
        """(m,) float32: the sketch, a batch of one, against these photos, in batches."""
        parts = [np.empty(0, np.float32)]
        batch = RET_BATCH if method == "ret" else BATCH
        for start in range(0, len(places), batch):
            photos = self._tokens(places[start : start + batch], method)
            parts.append(self._matcher.scores(sketch, photos, method)[0].numpy())
        return np.concatenate(parts)

    def diffused(self, places: Places, scores: Scores, method: Method) -> Scores:
        """(m,) float32: what ``scores`` become when these photos lend each other theirs."""
        if not len(places):
            return scores
        # By id, since the order of a sum decides its last bit.
        order = self.ids[places].argsort()
        ret = self._ret[torch.from_numpy(places[order])].ret
        spread = np.empty_like(scores)
        spread[order] = self._matcher.diffuse(torch.from_numpy(scores[order])[None], ret, method)[0].numpy()
        return spread

    def _tokens(self, places: Places, method: Method) -> Tokens:
        if method == "ret":
            return self._ret[torch.from_numpy(places)]
        return self._index.photo_tokens(places)


def best_first(ids: Ids, scores: Scores) -> NDArray[np.int64]:
    """The indices in the order of falling score; equal scores by id."""
    return np.lexsort((ids, -scores))

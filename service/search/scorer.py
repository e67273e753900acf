"""One generation of an index as searches read it: what each of them needs is in memory, photos' tokens are read."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import Index
from model import Matcher, Tokens
from model.network import Method

# Photos by their place in the gallery: one cluster after the other, in each by id.
Places = NDArray[np.int64]
Ids = NDArray[np.int64]
Scores = NDArray[np.float32]

# Bounds what is copied into memory at a time: 64 photos of the largest network are some 40 MiB. More of the default's
# would leave the cache before they are scored.
BATCH = 64
# The same on a GPU, in the matcher's chunks: it would wait for the next batch.
GPU_CHUNKS = 4
# The same of [Ret] alone: some 12 MiB with the default network.
RET_BATCH = 1 << 14
# Of a GPU's memory, as far as no other process has it, what a gallery's tokens may take: the next generation is loaded
# beside the live one.
RESIDENT_SHARE = 0.4


class Gallery:
    """The photos and clusters of one generation, scored with the checkpoint that made it.

    Keeps the centroids' halves of the cross-attention, some 200 KB a cluster with the default network, and [Ret] of all
    photos, 768 bytes each. On a GPU also the photos' tokens, where they fit; a CPU reads them out of the mapped files,
    which the system keeps in memory for as long as nothing else needs it.

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
        self._resident = self._all_tokens() if self._fits() else None

    def centroid_scores(self, sketch: Tokens, method: Method) -> Scores:
        """(c,) float32: the sketch, a batch of one, against the centroid of every cluster."""
        if not len(self.sizes):
            return np.empty(0, np.float32)
        centroids = self._centroid_ret if method == "ret" else self._centroids
        return self._matcher.scores(sketch, centroids, method)[0].numpy()

    def ret_scores(self, sketch: Tokens) -> Scores:
        """(p,) float32: the sketch, a batch of one, against all photos by [Ret]; the same as ``scores`` gives."""
        blocks = [slice(start, start + RET_BATCH) for start in range(0, len(self.ids), RET_BATCH)]
        parts = [self._matcher.scores(sketch, self._ret[block], "ret")[0].numpy() for block in blocks]
        return np.concatenate([np.empty(0, np.float32), *parts])

    def places(self, cluster: int) -> Places:
        """(m,): all photos of a cluster."""
        end = int(self._ends[cluster])
        return np.arange(end - int(self.sizes[cluster]), end)

    def scores(self, sketch: Tokens, places: Places, method: Method) -> Scores:
        """(m,) float32: the sketch, a batch of one, against these photos, in batches."""
        parts = [np.empty(0, np.float32)]
        photos_at_once = GPU_CHUNKS * self._matcher.chunk if self._on_gpu() else BATCH
        batch = RET_BATCH if method == "ret" else photos_at_once
        for start in range(0, len(places), batch):
            photos = self._tokens(places[start : start + batch], method)
            parts.append(self._matcher.scores(sketch, photos, method)[0].numpy())
        return np.concatenate(parts)

    def diffused(
        self, places: Places, scores: Scores, others: Places, ret_scores: Scores, method: Method
    ) -> tuple[Places, Scores]:
        """All these photos by id, and what their scores become when they lend each other theirs.

        places, scores: (m,), the photos that were scored. others: (n,), photos whose scores are estimated first, from
        ``ret_scores``, (p,) as ``ret_scores`` gives.
        """
        both = np.concatenate([places, others])
        if not len(both):
            return both, scores
        # By id, since the order of a sum decides its last bit.
        order = self.ids[both].argsort()
        both = both[order]
        ret = self._ret[torch.from_numpy(both)].ret
        known = torch.from_numpy(order < len(places))
        before = torch.from_numpy(np.concatenate([scores, np.zeros(len(others), np.float32)])[order])
        if len(others):
            before = self._matcher.estimate(before, known, torch.from_numpy(-ret_scores[both]), ret, method)
        return both, self._matcher.diffuse(before[None], ret, method)[0].numpy()

    def _tokens(self, places: Places, method: Method) -> Tokens:
        if method == "ret":
            return self._ret[torch.from_numpy(places)]
        if self._resident is not None:
            return self._resident[torch.from_numpy(places).to(self._matcher.device)]
        return self._index.photo_tokens(places)

    def _on_gpu(self) -> bool:
        return self._matcher.device.type == "cuda"

    def _fits(self) -> bool:
        """Whether the matcher's device is a GPU that has room for the tokens of all photos, and they are scored."""
        device = self._matcher.device
        if not self._on_gpu() or not len(self.ids) or not self._matcher.calibration.relation_trained:
            return False
        one = self._index.photo_tokens(np.arange(1))
        size = one.features.nbytes + one.positions.nbytes
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch has, the live generation's tokens among it, counts as free: the answer is the same for each.
        return len(self.ids) * size <= RESIDENT_SHARE * (free + torch.cuda.memory_reserved(device))

    def _all_tokens(self) -> Tokens:
        """Of all photos by place, on the matcher's device, as the index reads them."""
        device, count = self._matcher.device, len(self.ids)
        parts = [np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        first = self._index.photo_tokens(parts[0][:1])
        features = torch.empty(count, *first.features.shape[1:], dtype=first.features.dtype, device=device)
        positions = torch.empty(count, *first.positions.shape[1:], dtype=first.positions.dtype, device=device)
        for part in parts:
            tokens = self._index.photo_tokens(part)
            features[part[0] : part[-1] + 1] = tokens.features
            positions[part[0] : part[-1] + 1] = tokens.positions
        return Tokens(features, positions)


def best_first(ids: Ids, scores: Scores, count: int | None = None) -> NDArray[np.int64]:
    """The indices in the order of falling score, the first ``count`` of them; equal scores by id."""
    if count is None or count >= len(scores):
        return np.lexsort((ids, -scores))
    # Sorting all of a large gallery would cost more than scoring it by [Ret].
    least = np.partition(scores, -count)[-count]
    chosen = np.flatnonzero(scores >= least)
    return chosen[np.lexsort((ids[chosen], -scores[chosen]))][:count]

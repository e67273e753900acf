"""The photos and clusters of one generation of an index, ready to be scored: what every search needs is in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from indexer import Index, IndexRefused, PhotoEntry, PhotoFilter
from model import Matcher, Tokens
from model.ranking import ScoredBy
from service.search.gallery.interface import Word, WordLead
from service.search.gallery.ret import FOUND_AT_LEAST, RET_BATCH, Mask, RetOfIndex
from service.search.gallery.rows import GalleryRows
from service.search.parts import QueryParts
from service.search.ranking import Rows, Scores

# Photos that are copied into memory at a time: 64 of the largest network take some 40 MiB. More of the default network
# would not stay in the CPU's cache until they are scored.
BATCH = 64
# Chunks of the matcher that are scored at a time on a GPU, which would have to wait for the next batch otherwise.
GPU_CHUNKS = 4
# The share of a GPU's memory, without what other processes have of it, that the tokens of one gallery may take. Two
# must fit: the next generation is loaded beside the live one.
RESIDENT_SHARE = 0.4
_BUILD_AGAIN = "run `sketch-search index verify --repair`."


class GalleryScorer(GalleryRows):
    """Scores the photos and clusters of one generation with the checkpoint that made it.

    It keeps the centroids' halves of the cross-attention, some 200 KB a cluster with the default network, but for large
    galleries, and what ``service.search.gallery_ret`` keeps of [Ret]. On a GPU it keeps the photos' tokens, too, where
    they fit. A CPU reads them out of the mapped files, which the system keeps in memory for as long as nothing else
    needs it.

    Attributes:
        index: the generation.
        ids: (p,) int64, of the photos by row.
        cluster_sizes: (c,) int64, photos in each cluster.
        chunk: photos that the matcher scores at once.
        gallery_ret: [Ret] of the photos.
        grid: cells in a row of the network's patch grid.
    """

    def __init__(self, index: Index, matcher: Matcher) -> None:
        super().__init__(index.ids, index.cluster_sizes, torch.from_numpy(index.vectors.centroids), matcher)
        self.index = index
        self.chunk = matcher.chunk
        self.grid = matcher.config.grid
        self.gallery_ret = RetOfIndex(index, matcher)
        # In a large gallery, they are projected when clusters are searched: they would be most of what it keeps.
        keep = len(self.cluster_sizes) and not self.is_large
        self._centroids = matcher.project(index.centroids) if keep else index.centroids
        self._resident = self._all_tokens() if self._fits() else None

    def rows_of_ids(self, ids: Iterable[int]) -> Rows:
        """(m,): where the photos are that files with these ids belong to. Raises UnknownPhoto."""
        return np.array([self.row_of(self.index.photo(photo)) for photo in ids], np.int64)

    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """What the index knows of these photos, in their order."""
        return tuple(self.index.photo(photo) for photo in self.ids[rows].tolist())

    def passing(self, wanted: PhotoFilter) -> Mask:
        """(p,): whether a photo passes a filter."""
        return self.index.passing(wanted)

    def near_sketch(
        self, parts: QueryParts, method: ScoredBy, count: int, passing: Mask | None, lead: WordLead | None = None
    ) -> Rows | None:
        """As in ``Gallery``: all photos, but in a large gallery. By CLIP, [Ret] says nothing."""
        return None if method == "clip" else self.gallery_ret.near(parts.sketch.ret, count, passing)

    def near_photos(self, ret: torch.Tensor, count: int, passing: Mask | None) -> Rows | None:
        """As in ``Gallery``."""
        mean = self.gallery_ret.mean.to(ret.device)
        return self.gallery_ret.near(F.normalize(ret.float(), dim=1) - mean, count, passing)

    def near_word(self, word: Word, count: int, passing: Mask | None) -> Rows | None:
        """As in ``Gallery``. A text as CLIP has it is compared with all photos."""
        if not isinstance(word, int):
            return None
        return self.gallery_ret.near(self._matcher.word_direction(word)[None], count, passing)

    def ret(self, rows: Rows) -> torch.Tensor:
        """(m, d): [Ret] of these photos, on the matcher's device."""
        return self.gallery_ret.of(rows)

    def centroid_scores(self, parts: QueryParts, method: ScoredBy) -> Scores:
        """(c,) float32: the query against the centroid of every cluster; by CLIP, the mean of its photos' scores."""
        if not len(self.cluster_sizes):
            return np.empty(0, np.float32)
        if method == "clip":
            rows = np.arange(self.photo_count)
            scores = self._by_clip(parts, rows)
            sums = np.bincount(self.clusters_of(rows), weights=scores, minlength=len(self.cluster_sizes))
            return (sums / np.maximum(self.cluster_sizes, 1)).astype(np.float32)
        centroids = self._centroid_ret if method == "ret" else self._centroids
        return self._matcher.scores(parts.sketch, centroids, method)[0].numpy()

    def ret_scores(self, parts: QueryParts, rows: Rows | None = None) -> Scores:
        """(m,) float32: the query against these photos, or all, by [Ret]; the same as ``scores`` gives."""
        return self.gallery_ret.scores(parts.sketch, np.arange(self.photo_count) if rows is None else rows)

    def word_scores(self, word: int, rows: Rows | None = None) -> Scores:
        """(m,) float32: how much these photos, or all, show what a word names; see ``Matcher.word_scores``."""
        return self.gallery_ret.word_scores(word, np.arange(self.photo_count) if rows is None else rows)

    @property
    def is_large(self) -> bool:
        """Whether more photos are shown than are compared exactly."""
        return self.photo_count > FOUND_AT_LEAST

    def clip_scores(self, vector: NDArray[np.float32], rows: Rows | None = None) -> Scores:
        """(m,) float32: a vector (e,) times what CLIP made of these photos, or of all.

        Raises IndexRefused where that is damaged.
        """
        wanted = np.arange(self.photo_count) if rows is None else rows
        if (embeddings := self.index.embeddings) is None:
            raise IndexRefused(f"the index has no CLIP vectors; {_BUILD_AGAIN}")
        scored = [np.empty(0, np.float32)]
        for start in range(0, len(wanted), RET_BATCH):
            vectors = embeddings.of(wanted[start : start + RET_BATCH]).numpy()
            if vectors.shape[1:] != vector.shape:
                raise IndexRefused(f"the index has CLIP vectors of another length than its model gives; {_BUILD_AGAIN}")
            # Not by BLAS, whose sums depend on how many photos are scored at once.
            scored.append(np.einsum("pe,e->p", vectors, vector))
        scores = np.concatenate(scored)
        if not np.isfinite(scores).all():
            raise IndexRefused(f"the CLIP vectors of the index are damaged; {_BUILD_AGAIN}")
        return scores

    def scores(self, parts: QueryParts, rows: Rows, method: ScoredBy) -> Scores:
        """(m,) float32: the query against these photos, in batches."""
        if method == "clip":
            return self._by_clip(parts, rows)
        if method == "ret":
            return self.ret_scores(parts, rows)
        scored = [np.empty(0, np.float32)]
        batch = GPU_CHUNKS * self.chunk if self._on_gpu() else BATCH
        for start in range(0, len(rows), batch):
            part = self.tokens(rows[start : start + batch])
            scored.append(self._matcher.scores(parts.sketch, part, method)[0].numpy())
        return np.concatenate(scored)

    def _by_clip(self, parts: QueryParts, rows: Rows) -> Scores:
        """(m,) float32: the query against these photos by the cosine of CLIP's vectors."""
        if parts.clip is None:
            raise ValueError("the query has no vector by CLIP")
        return self.clip_scores(parts.clip, rows)

    def tokens(self, rows: Rows) -> Tokens:
        """The tokens of these photos, where they are kept: on the matcher's device or in memory."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._matcher.device)]
        return self.index.photo_tokens(rows)

    def _on_gpu(self) -> bool:
        return self._matcher.device.type == "cuda"

    def _fits(self) -> bool:
        """Whether the matcher's device is a GPU with room for the tokens of all photos, and a method needs them."""
        device = self._matcher.device
        if not self._on_gpu() or not len(self.ids) or not self._matcher.calibration.relation_trained:
            return False
        one = self.index.photo_tokens(np.arange(1))
        size = one.features.nbytes + one.positions.nbytes
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch has taken, such as the live generation's tokens, counts as free: the answer must be the same for
        # the first generation and for later ones.
        return len(self.ids) * size <= RESIDENT_SHARE * (free + torch.cuda.memory_reserved(device))

    def _all_tokens(self) -> Tokens:
        """The tokens of all photos, on the matcher's device, with the values that the index reads."""
        device, count = self._matcher.device, len(self.ids)
        parts = [np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        like = self.index.photo_tokens(parts[0][:1])
        features, positions = (
            torch.empty(count, *one.shape[1:], dtype=one.dtype, device=device)
            for one in (like.features, like.positions)
        )
        for part in parts:
            some = self.index.photo_tokens(part)
            features[part[0] : part[-1] + 1] = some.features
            positions[part[0] : part[-1] + 1] = some.positions
        return Tokens(features, positions)

"""What a search asks of a gallery. It may be one index on this machine, or shards of an index on several machines.

``GalleryScorer`` is the first, and ``service.sharding`` has the other. Photos are counted by *rows*: one cluster after
the other, in each cluster by id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import EmbedderEntry, PhotoEntry, PhotoFilter
from model import Tokens
from model.ranking import ScoredBy
from service.schemas import Cluster
from service.search.gallery.ret import GalleryRet, Mask
from service.search.parts import QueryParts
from service.search.ranking import Ids, Rows, Scores
from service.towers import TextVector

#: A word of a query: its number in the checkpoint's vocabulary, or a text as CLIP has it.
Word: TypeAlias = int | TextVector


@dataclass(frozen=True)
class WordLead:
    """A word that leads the scores by [Ret]. best: the highest score by it of a photo that may be found."""

    word: Word
    best: float


class SearchedIndex(Protocol):
    """What the service asks of an index, beside what it searches by.

    Attributes:
        generation: its name. made: tells generations of different indexes apart, too.
        photo_count, cluster_count: how many there are. ids: (p,) the photos' ids by row.
        embedder: what the photos were clustered by. tokens_kept: of each photo, [Ret] included.
    """

    @property
    def generation(self) -> str: ...

    @property
    def photo_count(self) -> int: ...

    @property
    def cluster_count(self) -> int: ...

    @property
    def ids(self) -> Ids: ...

    @property
    def made(self) -> str: ...

    @property
    def embedder(self) -> EmbedderEntry: ...

    @property
    def tokens_kept(self) -> int: ...

    def photo(self, photo: int) -> PhotoEntry:
        """The photo that a file's id belongs to. Raises UnknownPhoto."""

    def photos(self, photos: Iterable[int]) -> tuple[PhotoEntry, ...]:
        """The same of several, in their order. Raises UnknownPhoto."""

    def photo_at(self, target: str) -> PhotoEntry:
        """The photo of a file, by its path. Raises BadInvocation."""

    def open_photo(self, photo: int) -> bytes:
        """The bytes that were indexed as this photo. Raises UnknownPhoto and PhotoUnavailable."""

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Some of these bytes, from a file of that size. Raises UnknownPhoto and PhotoUnavailable."""

    def cluster_ids(self, number: int) -> NDArray[np.int64]:
        """(m,) ascending: the ids of a cluster's photos. IndexError where there is no such cluster."""

    def photo_tokens(self, places: Rows) -> Tokens:
        """The tokens of the photos at these rows."""

    def close(self) -> None:
        """Let go of the files."""


class Gallery(Protocol):
    """The photos and clusters of a gallery, ready to be scored. ``GalleryScorer`` says more of what both have.

    Attributes:
        ids, cluster_sizes, chunk, grid, gallery_ret: as of ``GalleryScorer``.
        index: what else is known of the photos.
        is_large: whether only the photos near a query are compared with it, also where all are asked for.
    """

    ids: Ids
    cluster_sizes: NDArray[np.int64]
    chunk: int
    grid: int

    @property
    def index(self) -> SearchedIndex: ...

    @property
    def gallery_ret(self) -> GalleryRet: ...

    @property
    def photo_count(self) -> int: ...

    @property
    def is_large(self) -> bool: ...

    def rows_of(self, cluster: int) -> Rows:
        """(m,): all photos of a cluster."""

    def clusters_of(self, rows: Rows) -> NDArray[np.int64]:
        """(m,): the clusters that these photos are in."""

    def row_of(self, photo: PhotoEntry) -> int:
        """Where a photo is."""

    def rows_of_ids(self, ids: Iterable[int]) -> Rows:
        """(m,): where the photos are that files with these ids belong to. Raises UnknownPhoto."""

    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """What is known of these photos, in their order."""

    def passing(self, wanted: PhotoFilter) -> Mask:
        """(p,): whether a photo passes a filter."""

    def near_sketch(
        self, parts: QueryParts, method: ScoredBy, count: int, passing: Mask | None, lead: WordLead | None = None
    ) -> Rows | None:
        """Rows, ascending, among which are the ``count`` photos that [Ret] puts first; None for all photos.

        Args:
            method: what scores photos; by "clip", that counts and not [Ret].
            passing: (p,) which photos may be found; None for all.
            lead: what leads [Ret]. It may be left out of account; who asks then takes the best by the word, too.
        """

    def near_photos(self, ret: torch.Tensor, count: int, passing: Mask | None) -> Rows | None:
        """The same for those that look most like one of some photos, whose [Ret] (m, d) is given."""

    def near_word(self, word: Word, count: int, passing: Mask | None) -> Rows | None:
        """The same for those that show most of what a word names."""

    def ret(self, rows: Rows) -> torch.Tensor:
        """(m, d): [Ret] of these photos, on the matcher's device."""

    def centroid_scores(self, parts: QueryParts, method: ScoredBy) -> Scores:
        """(c,) float32: the query against the centroid of every cluster."""

    def clusters_by_ret(self, parts: QueryParts, clusters: NDArray[np.int64]) -> tuple[Cluster, ...]:
        """These clusters with the scores of their centroids by [Ret], best first, ties by id."""

    def ret_scores(self, parts: QueryParts, rows: Rows | None = None) -> Scores:
        """(m,) float32: the query against these photos, or all, by [Ret]."""

    def word_scores(self, word: int, rows: Rows | None = None) -> Scores:
        """(m,) float32: how much these photos, or all, show what a word of the vocabulary names."""

    def clip_scores(self, vector: NDArray[np.float32], rows: Rows | None = None) -> Scores:
        """(m,) float32: a vector (e,) times what CLIP made of these photos, or of all."""

    def scores(self, parts: QueryParts, rows: Rows, method: ScoredBy) -> Scores:
        """(m,) float32: the query against these photos."""

    def tokens(self, rows: Rows) -> Tokens:
        """The tokens of these photos."""

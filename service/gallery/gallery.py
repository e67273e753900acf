"""Defines what a search needs of photos: one index in this process (``LocalGallery``), or shards on many machines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from indexer import EmbedderEntry, PhotoEntry, PhotoFilter
from model.engine import Floats, Modality, Tokens
from service.gallery.candidates import Candidates, Ids, Rows, Scores, ShardQuery
from service.gallery.clusters import Clusters


class Gallery(ABC):
    """Photos in clusters. A photo's *row* counts one cluster after the other, and by id in each.

    Any thread may call the methods. They raise ShardsLost if a shard that they need does not answer.

    Attributes:
        tokens_kept: of each photo, [Ret] included.
        generation_id: tells the generation apart from all others.
        missing: the names of shards that are not searched, because they do not answer.
    """

    clusters: Clusters
    photo_count: int
    embedder: EmbedderEntry
    tokens_kept: int
    generation: str
    generation_id: str
    missing: tuple[str, ...] = ()

    @abstractmethod
    def find(self, query: ShardQuery, known: Candidates | None = None) -> Candidates:
        """Finds photos of the opened clusters, the best by vector, by word and by likeness, and scores them.

        known: what the same search found before: its photos are not scored again.
        """

    @abstractmethod
    def passing(self, wanted: PhotoFilter) -> NDArray[np.int64]:
        """Counts the photos of each cluster that pass a filter, (c,)."""

    @abstractmethod
    def rows_of_ids(self, ids: Sequence[int]) -> Rows:
        """Returns the rows of the photos of these ids, (m,). Raises UnknownPhoto."""

    @abstractmethod
    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """Returns the entries of these photos, in their order."""

    @abstractmethod
    def vectors(self, rows: Rows) -> Floats:
        """Returns the vectors of these photos, (m, d)."""

    @abstractmethod
    def tokens(self, rows: Rows) -> Tokens:
        """Returns the tokens of these photos."""

    @abstractmethod
    def nearness(self, given: Tokens, modality: Modality) -> tuple[Ids, Scores]:
        """Returns all ids, and minus the distance of each to a sketch, or the likeness to a photo, a batch of one."""

    @abstractmethod
    def alike(self, photos: Floats, count: int) -> list[tuple[Ids, Scores]]:
        """Finds the ``count`` photos that look most like each of these, (q, d), best first: ids and likenesses."""

    @abstractmethod
    def cluster_ids(self, number: int) -> Ids:
        """Returns the ids of a cluster's photos, (m,) ascending."""

    @abstractmethod
    def photo_at(self, target: str) -> PhotoEntry:
        """Finds the photo of a file by its path, as results show it or on disk. Raises BadInvocation."""

    @abstractmethod
    def address_of(self, shown: str) -> str:
        """Returns the path or the URL of a file that is named by its path as results show it. Raises BadInvocation."""

    @abstractmethod
    def open_photo(self, photo: int) -> bytes:
        """Reads the bytes that were indexed as a photo. Raises UnknownPhoto and PhotoUnavailable."""

    @abstractmethod
    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Reads some of the same bytes, of a file of this size. Raises UnknownPhoto and PhotoUnavailable."""

    def photos(self, ids: Sequence[int]) -> tuple[PhotoEntry, ...]:
        """Returns photos by id, in this order. Raises UnknownPhoto."""
        return self.entries(self.rows_of_ids(ids))

    def photo(self, photo: int) -> PhotoEntry:
        """Returns a photo by id. Raises UnknownPhoto."""
        return self.photos([photo])[0]


#: Returns what can be searched now of the generations that were opened, without the shards with these names.
OpenGallery: TypeAlias = Callable[[Collection[str]], Gallery]

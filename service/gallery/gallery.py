"""Defines the gallery that the service uses: it can be searched, and its photos looked up."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer import EmbedderEntry, PhotoEntry, PhotoFilter, System
from sketch_search.model import search
from sketch_search.model.engine import Floats, Modality, Tokens
from sketch_search.model.search import Ids, PhotoRows, Scores


class Gallery(search.Gallery):
    """Photos of one index, or of shards. The methods raise ShardsLost if a shard that they need does not answer.

    Attributes:
        system: that of plain searches. generation_id: identifies the generation.
        created: when the generation was made; None for shards, each of which has its own.
        missing: the names of shards that are not searched, because they do not answer.
    """

    photo_count: int
    system: System = "default"
    embedder: EmbedderEntry
    generation: str
    generation_id: str
    missing: tuple[str, ...] = ()
    created: datetime | None = None

    @abstractmethod
    def rows_of_ids(self, ids: Sequence[int]) -> PhotoRows:
        """Returns the rows of the photos with these ids, (m,). Raises UnknownPhoto."""

    @abstractmethod
    def newest(self, wanted: PhotoFilter, count: int) -> tuple[PhotoRows, NDArray[np.int64]]:
        """Finds the newest photos that pass a filter: their rows, newest first, and their days, as ordinals."""

    @abstractmethod
    def entries(self, rows: PhotoRows) -> tuple[PhotoEntry, ...]:
        """Returns the entries of these photos, in their order."""

    @abstractmethod
    def vectors(self, rows: PhotoRows) -> Floats:
        """Returns the vectors of these photos, (m, d)."""

    @abstractmethod
    def nearness(self, given: Tokens, modality: Modality) -> tuple[Ids, Scores]:
        """Returns all ids, and minus the distance of each to a sketch, or its likeness to a photo; a batch of one."""

    @abstractmethod
    def alike(self, photos: Floats, count: int) -> list[tuple[Ids, Scores]]:
        """Finds the ``count`` photos that look most like each of these, (q, d), best first: ids and likenesses."""

    @abstractmethod
    def photo_at(self, target: str) -> PhotoEntry:
        """Finds the photo of a file by its path, as results show it or on disk. Raises BadInvocation."""

    @abstractmethod
    def address_of(self, shown: str) -> str:
        """Returns the path or URL of a file, given its path as results show it. Raises BadInvocation."""

    @abstractmethod
    def open_photo(self, photo: int) -> bytes:
        """Reads the bytes that were indexed as a photo. Raises UnknownPhoto and PhotoUnavailable."""

    @abstractmethod
    def original(self, photo: int) -> tuple[int, str | None]:
        """Returns the size and media type of the file with these bytes; None for no image. Raises as ``open_photo``."""

    @abstractmethod
    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Reads a part of these bytes, from a file of this size. Raises UnknownPhoto and PhotoUnavailable."""

    def photos(self, ids: Sequence[int]) -> tuple[PhotoEntry, ...]:
        """Returns photos by id, in this order. Raises UnknownPhoto."""
        return self.entries(self.rows_of_ids(ids))

    def photo(self, photo: int) -> PhotoEntry:
        """Returns a photo by id. Raises UnknownPhoto."""
        return self.photos([photo])[0]


#: Returns the searchable part of the opened generations, without the shards with these names.
OpenGallery: TypeAlias = Callable[[Collection[str]], Gallery]

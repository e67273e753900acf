"""Defines the gallery that the service uses, and searches one index on this machine."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer import EmbedderEntry, Index, PhotoEntry, PhotoFilter, System
from sketch_search.model import Matcher, search
from sketch_search.model.engine import Floats, Modality, Tokens
from sketch_search.model.pauses import pause
from sketch_search.model.ranking import likeness_to, likenesses
from sketch_search.model.search import Clusters, Ids, PhotoGallery, PhotoRows, Scores, first_of_each, most_alike
from sketch_search.model.search.photos import BLOCK


class Gallery(search.Gallery):
    """Photos of one index, or of shards. The methods raise ShardsLost if a shard that they need does not answer.

    system: that of plain searches. computed: as of its manifest. generation_id: identifies the generation. created:
    when it was made; None for shards. missing: the names of shards that are not searched, because they do not answer.
    """

    photo_count: int
    system: System = "default"
    embedder: EmbedderEntry
    computed: tuple[str, ...]
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
    def with_parts(self, rows: PhotoRows) -> tuple[NDArray[np.int64], PhotoRows]:
        """Returns the rows of these photos and of their parts, and before them which of the photos each shows."""

    @abstractmethod
    def vectors(self, rows: PhotoRows) -> Floats:
        """Returns the vectors of these photos, (m, d)."""

    @abstractmethod
    def boxes(self, rows: PhotoRows) -> NDArray[np.uint8]:
        """Returns the boxes of these photos, (m, BOXES, 6)."""

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


class LocalGallery(PhotoGallery, Gallery):
    """A generation of an index, opened with the checkpoint that made its tokens. Tokens are read from mapped files."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        clusters = Clusters(
            index.cluster_sizes,
            index.vectors.centroids,
            index.centroids.features,
            index.centroids.positions.astype(np.uint8),
            None if index.embeddings is None else index.embeddings.centroids,
            index.cluster_parts,
        )
        kept = index.manifest.identity.tokens, index.regions_kept, index.boxes_kept
        super().__init__(index, matcher, clusters, *kept)
        self.index, self.system = index, index.manifest.system
        self.photo_count, self.embedder = index.photo_count, index.manifest.embedder
        self.generation, self.generation_id = index.generation, index.generation_id
        self.created, self.computed = index.manifest.created, index.manifest.computed

    def newest(self, wanted: PhotoFilter, count: int) -> tuple[PhotoRows, NDArray[np.int64]]:
        return self.index.newest(wanted, count)

    def rows_of_ids(self, ids: Sequence[int]) -> PhotoRows:
        return np.array([self._row_of(entry) for entry in self.index.photos(ids)], np.int64)

    def _row_of(self, entry: PhotoEntry) -> int:
        rows = self.clusters.rows_of(entry.cluster)
        return int(rows[np.searchsorted(self.index.ids[rows], entry.id)])

    def entries(self, rows: PhotoRows) -> tuple[PhotoEntry, ...]:
        return self.photos(self.index.ids[rows].tolist())

    def photos(self, ids: Sequence[int]) -> tuple[PhotoEntry, ...]:
        return self.index.photos(ids)

    def with_parts(self, rows: PhotoRows) -> tuple[NDArray[np.int64], PhotoRows]:
        photos, parts = np.nonzero(rows[:, None] == self.index.parts_of)
        return np.concatenate([np.arange(len(rows)), photos]), np.concatenate([rows, self.index.parts[parts]])

    def vectors(self, rows: PhotoRows) -> Floats:
        return self.index.vectors.of(rows)

    def boxes(self, rows: PhotoRows) -> NDArray[np.uint8]:
        return self.index.photo_boxes(rows)

    def nearness(self, given: Tokens, modality: Modality, mean: Floats | None = None) -> tuple[Ids, Scores]:
        """mean: (d,) of all vectors of the gallery, if this is one of its shards."""
        near, ids = [np.empty(0, np.float32)], self.index.ids
        for start in range(0, len(ids), BLOCK):
            pause()
            vectors = self.index.vectors.of(np.arange(start, min(start + BLOCK, len(ids))))
            if modality == "photo":
                near.append(likeness_to(given.ret, vectors, self.clusters.mean if mean is None else mean))
            else:
                near.append(self._matcher.scores(given, Tokens.of_ret(vectors), "ret")[0])
        scores = np.concatenate(near)
        best = first_of_each(ids, scores) if len(self.index.parts) else slice(None)
        return ids[best], scores[best]

    def alike(self, photos: Floats, count: int, mean: Floats | None = None) -> list[tuple[Ids, Scores]]:
        """mean: as for ``nearness``."""
        nearest, wholes = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in photos], self.index.wholes
        for start in range(0, len(wholes), BLOCK):
            pause()
            rows = wholes[start : start + BLOCK]
            ids, vectors = self.index.ids[rows], self.index.vectors.of(rows)
            near = likenesses(photos, vectors, self.clusters.mean if mean is None else mean)
            nearest = [most_alike([best, (ids, column)], count) for best, column in zip(nearest, near.T, strict=True)]
        return nearest

    def photo_at(self, target: str) -> PhotoEntry:
        return self.index.photo_at(target)

    def address_of(self, shown: str) -> str:
        return self.index.address_of(shown)

    def open_photo(self, photo: int) -> bytes:
        return self.index.open_photo(photo)

    def original(self, photo: int) -> tuple[int, str | None]:
        return self.index.original(photo)

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        return self.index.part_of_photo(photo, size, start, count)

"""Searches one index on this machine, and looks up its photos."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer import Index, PhotoEntry, PhotoFilter
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, Modality, Tokens
from sketch_search.model.pauses import pause
from sketch_search.model.ranking import likeness_to, likenesses
from sketch_search.model.search import Clusters, Ids, PhotoGallery, PhotoRows, Scores, most_alike
from sketch_search.model.search.photos import BLOCK
from sketch_search.service.gallery.gallery import Gallery


class LocalGallery(PhotoGallery, Gallery):
    """A generation of an index, opened with the checkpoint that made its tokens. Tokens are read from mapped files."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        clusters = Clusters(
            index.cluster_sizes,
            index.vectors.centroids,
            index.centroids.features,
            index.centroids.positions.astype(np.uint8),
            None if index.embeddings is None else index.embeddings.centroids,
        )
        super().__init__(index, matcher, clusters, index.manifest.identity.tokens, index.regions_kept)
        self.index, self.system = index, index.manifest.system
        self.photo_count, self.embedder = index.photo_count, index.manifest.embedder
        self.generation, self.generation_id = index.generation, index.generation_id
        self.created = index.manifest.created

    def newest(self, wanted: PhotoFilter, count: int) -> tuple[PhotoRows, NDArray[np.int64]]:
        return self.index.newest(wanted, count)

    def rows_of_ids(self, ids: Sequence[int]) -> PhotoRows:
        return np.array([self._row_of(entry) for entry in self.index.photos(ids)], np.int64)

    def _row_of(self, entry: PhotoEntry) -> int:
        rows = self.index.vectors.rows_of(entry.cluster)
        return int(rows[np.searchsorted(self.index.ids[rows], entry.id)])

    def entries(self, rows: PhotoRows) -> tuple[PhotoEntry, ...]:
        return self.photos(self.index.ids[rows].tolist())

    def photos(self, ids: Sequence[int]) -> tuple[PhotoEntry, ...]:
        return self.index.photos(ids)

    def vectors(self, rows: PhotoRows) -> Floats:
        return self.index.vectors.of(rows)

    def nearness(self, given: Tokens, modality: Modality, mean: Floats | None = None) -> tuple[Ids, Scores]:
        """mean: (d,) of all vectors of the gallery, if this is one of its shards."""
        near = [np.empty(0, np.float32)]
        for start in range(0, self.photo_count, BLOCK):
            pause()
            vectors = self.index.vectors.of(np.arange(start, min(start + BLOCK, self.photo_count)))
            if modality == "photo":
                near.append(likeness_to(given.ret, vectors, self.clusters.mean if mean is None else mean))
            else:
                near.append(self._matcher.scores(given, Tokens.of_ret(vectors), "ret")[0])
        return self.index.ids, np.concatenate(near)

    def alike(self, photos: Floats, count: int, mean: Floats | None = None) -> list[tuple[Ids, Scores]]:
        """mean: as for ``nearness``."""
        found = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in photos]
        for start in range(0, self.photo_count, BLOCK):
            pause()
            ids = self.index.ids[start : start + BLOCK]
            vectors = self.index.vectors.of(np.arange(start, start + len(ids)))
            near = likenesses(photos, vectors, self.clusters.mean if mean is None else mean)
            found = [most_alike([best, (ids, column)], count) for best, column in zip(found, near.T, strict=True)]
        return found

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

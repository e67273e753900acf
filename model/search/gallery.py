"""Defines the gallery that a search uses: photos whose arrays are at hand (``PhotoGallery``), or shards elsewhere."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine import Floats, Tokens, unit
from sketch_search.model.errors import GalleryUnusable
from sketch_search.model.ranking import promise
from sketch_search.model.search.candidates import MATCHED, Candidates, Nearest, PhotoRows, Query, Scores
from sketch_search.model.things import Matched

# A gallery with this many clusters has a second level of clusters above them, which finds those that a query is
# compared with: sorting all of them would take longer than scoring photos.
MANY_CLUSTERS = 100_000
# Clusters found for each part of a query, 64 times as many as are opened, and clusters above that are opened for it.
NEAR_CLUSTERS, OPENED_ABOVE = 4096, 64


# The result of ``Gallery.scored``.
Scored: TypeAlias = tuple[NDArray[np.float16], Scores, Matched | None]


@dataclass(frozen=True)
class Clusters:
    """The clusters of a gallery, whose photos lie one cluster after the other.

    Attributes:
        sizes: (c,) int64, photos in each. vectors: (c, d) float32, their mean vectors.
        features, positions: of their mean tokens, (c, n, d) and (c, n-1).
        embeddings: (c, e) float32, their centroids by CLIP; None if they were not made by it.
        parts: (c,) int64, rows of parts of photos behind these; None for none.
    """

    sizes: NDArray[np.int64]
    vectors: Floats
    features: NDArray[np.floating]
    positions: NDArray[np.uint8]
    embeddings: Floats | None = None
    parts: NDArray[np.int64] | None = None

    @cached_property
    def ends(self) -> PhotoRows:
        """(c,): the row after each cluster's last one."""
        return np.cumsum(self.rows)

    @property
    def rows(self) -> NDArray[np.int64]:
        """(c,): rows of photos and parts in each."""
        return self.sizes if self.parts is None else self.sizes + self.parts

    def rows_of(self, cluster: int) -> PhotoRows:
        """Returns the rows of a cluster's photos."""
        start = self.ends[cluster] - self.rows[cluster]
        return np.arange(start, start + self.sizes[cluster])

    def of(self, rows: PhotoRows) -> NDArray[np.int64]:
        """Returns the clusters of these photos."""
        return np.searchsorted(self.ends, rows, side="right")

    def are_parts(self, rows: PhotoRows) -> NDArray[np.bool_]:
        """Returns which of these rows are of parts of photos."""
        clusters = self.of(rows)
        return rows >= (self.ends - self.rows + self.sizes)[clusters]

    @cached_property
    def mean(self) -> Floats:
        """(d,): the mean of all vectors of photos."""
        weights = self.sizes / max(1, self.sizes.sum())
        return np.asarray(weights @ self.vectors, np.float32)

    @cached_property
    def _above(self) -> Any:
        """The second level: about the square root of the clusters hold these as clusters hold photos."""
        import faiss

        above = faiss.index_factory(
            self.vectors.shape[1], f"IVF{round(math.sqrt(len(self.sizes)))},Flat", faiss.METRIC_INNER_PRODUCT
        )
        directions = unit(self.vectors)
        above.train(directions)
        above.add(directions)
        faiss.extract_index_ivf(above).nprobe = OPENED_ABOVE
        return above

    def near(self, directions: Floats) -> NDArray[np.int64]:
        """Returns the clusters to compare with directions (q, d), ascending: all if they are few."""
        if len(self.sizes) < MANY_CLUSTERS:
            return np.arange(len(self.sizes))
        found = np.unique(self._above.search(np.ascontiguousarray(directions, np.float32), NEAR_CLUSTERS)[1])
        return found[found >= 0]

    def by_clip(self, vector: Floats) -> Scores:
        """Multiplies a vector of CLIP (e,) by the centroids by CLIP: (c,). Raises GalleryUnusable if lengths differ."""
        assert self.embeddings is not None
        if vector.shape != self.embeddings.shape[1:]:
            raise GalleryUnusable(
                f"the index has CLIP vectors of length {self.embeddings.shape[1]}, but its model gives {len(vector)}; "
                "delete the index folder and build again."
            )
        return (self.embeddings @ vector).astype(np.float32)

    def vectors_of(self, clusters: NDArray[np.int64]) -> Floats:
        """Returns the mean vectors of these clusters, ascending; not copied if these are all clusters."""
        return self.vectors if len(clusters) == len(self.sizes) else self.vectors[clusters]

    def tokens(self, clusters: NDArray[np.int64]) -> Tokens:
        """Returns the tokens of these clusters."""
        return Tokens(self.features[clusters], self.positions[clusters])


class Gallery(ABC):
    """Photos in clusters. A photo's *row* counts one cluster after the other, and by id in each.

    A part of a photo has a row behind its cluster's photos. Of the rows of a photo, a search shows the best, as that.

    Any thread may call the methods.

    Attributes:
        tokens_kept: of each photo, [Ret] included. regions_kept: of each photo.
        boxes_kept: whether photos have boxes, as far as things were detected in them.
        expects: (k,) float32, by what its photos multiply the guess of each thing; None without a vocabulary.
    """

    clusters: Clusters
    tokens_kept: int
    regions_kept: int
    boxes_kept: bool

    @property
    @abstractmethod
    def expects(self) -> Floats | None: ...

    def find(self, query: Query, known: Candidates | None = None) -> Candidates:
        """Finds and scores photos of the opened clusters. known: of the same search, whose photos keep their scores."""
        found = self.nearest(query)
        if query.matches and len(found):
            best = found.most_promising(found.by_vector, MATCHED)
            total = promise(found.by_vector, best, self.matches(query, found.rows[best]))
            found = replace(found, promise=total)
        scores, left = found.known_scores(query, known)
        vectors, scores[left], matched = self.scored(query, found.rows, left)
        fits = None if matched is None else matched.scores.mean(axis=0)
        if query.method == "things" and fits is not None:
            scores = fits if query.whole is None else fits + unit(vectors.astype(np.float32)) @ query.whole
        return Candidates(**vars(found), vectors=vectors, scores=scores, fits=fits, matched=matched)

    @abstractmethod
    def nearest(self, query: Query) -> Nearest:
        """Finds the photos of the opened clusters that become candidates, by vectors alone."""

    @abstractmethod
    def matches(self, query: Query, rows: PhotoRows) -> Scores:
        """Computes the best matches of the sketch's tokens and those of these photos, (m,)."""

    @abstractmethod
    def scored(self, query: Query, rows: PhotoRows, wanted: NDArray[np.int64]) -> Scored:
        """Reads the vectors of these photos, (m, d), and scores some of them by the query's method.

        wanted: (w,) the indices of those to score. Returns the vectors; the scores (w,); and with things the regions
        of all of these photos that match them best, else None.
        """

    @abstractmethod
    def passing(self, wanted: Any) -> NDArray[np.int64]:
        """Counts the photos of each cluster that pass a filter, (c,)."""

    @abstractmethod
    def tokens(self, rows: PhotoRows) -> Tokens:
        """Returns the tokens of these photos."""

    @abstractmethod
    def matched(self, query: Query, rows: PhotoRows) -> Matched:
        """Returns the regions of these photos that match each thing best."""

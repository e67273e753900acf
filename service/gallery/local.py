"""Searches one index on this machine: finds photos in its clusters by vector, and scores them."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer import Index, IndexRefused, PhotoEntry, PhotoFilter, Vectors
from sketch_search.indexer.errors import REPAIR
from sketch_search.model import Matcher
from sketch_search.model.engine import Modality, Tokens, logsumexp
from sketch_search.model.ranking import ALIKE, best_matches, likeness_to, likenesses
from sketch_search.model.things import Matched, sought
from sketch_search.service.gallery.candidates import (
    Floats,
    Ids,
    Mask,
    Nearest,
    PhotoRows,
    Scores,
    ShardQuery,
    most_alike,
)
from sketch_search.service.gallery.gallery import Clusters, Gallery, Scored

# Clusters are searched by the cosine alone. They yield this many times as many photos as wanted, and at least this
# number, because the prior and other scores change their order. In a made gallery of 100,000 photos, 4,000
# of them held all of the first 96 by distance, and 1,000 held 0.995 of them.
FOUND_FOR_ONE, FOUND_AT_LEAST = 4, 4096
# Photos whose vectors are compared at a time: some 12 MiB with the default network.
BLOCK = 1 << 14
# Chunks of the matcher whose tokens are copied into memory at a time: 64 photos of the largest network take some 40
# MiB. More of the default network would not stay in the CPU's cache until they are scored.
BATCHED = 2
# Photos whose tokens are matched at a time: 0.8 MiB of the default network in float32, which fit in a core's cache.
MATCHED_AT_ONCE = 64
# Photos whose regions are unpacked at a time: more would not fit in the CPU's cache.
REGIONS_AT_ONCE = 128
# Filters whose photos are kept, a byte for each photo of the gallery: during drawing, one is reused.
FILTERS_KEPT = 16


class LocalGallery(Gallery):
    """A generation of an index, opened with the checkpoint that made its tokens. Tokens are read from mapped files."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self.index, self._matcher = index, matcher
        self.clusters = Clusters(
            index.cluster_sizes,
            index.vectors.centroids,
            index.centroids.features,
            index.centroids.positions.astype(np.uint8),
            None if index.embeddings is None else index.embeddings.centroids,
        )
        self.photo_count, self.embedder = index.photo_count, index.manifest.embedder
        self.tokens_kept, self.regions_kept = index.manifest.identity.tokens, index.regions_kept
        self.generation, self.generation_id = index.generation, index.generation_id
        self._passing: Callable[[PhotoFilter], Mask] = lru_cache(maxsize=FILTERS_KEPT)(index.passing)
        # Both depend only on the photo. They are computed when first needed, and take four bytes a photo.
        self._priors, self._levels = (np.full(index.photo_count, np.nan, np.float32) for _ in range(2))

    def nearest(self, query: ShardQuery) -> Nearest:
        rows = self._near(query)
        blocks = np.split(rows, range(BLOCK, len(rows), BLOCK))
        return Nearest.joined([self._compared(block, query) for block in blocks]).best(query)

    def _near(self, query: ShardQuery) -> PhotoRows:
        """Returns photos of the opened clusters that include all the wanted ones, (m,) ascending."""
        mask = None if query.wanted is None else self._passing(query.wanted)
        vectors, clusters = self.index.vectors, query.clusters
        if query.count is None:
            rows = vectors.rows_of(clusters)
            return rows if mask is None else rows[mask[rows]]
        wanted = max(FOUND_AT_LEAST, FOUND_FOR_ONE * query.count)
        found = [np.empty(0, np.int64)]
        if query.sketch is not None:
            found.append(vectors.near(query.sketch.ret, wanted, mask, clusters))
        if query.liked is not None:
            found.append(vectors.near(query.liked - query.mean, wanted, mask, clusters))
            liked = np.flatnonzero(np.isin(self.index.ids, query.liked_ids))
            found.append(liked if mask is None else liked[mask[liked]])
        if isinstance(query.word, np.ndarray):
            found.append(self._embeddings.near(query.word[None], wanted, mask, clusters))
        elif query.word is not None:
            directions = np.stack([self._matcher.word_direction(thing) for thing in query.word])
            found.append(vectors.near(directions, wanted, mask, clusters))
        return np.unique(np.concatenate(found))

    def _compared(self, rows: PhotoRows, query: ShardQuery) -> Nearest:
        """Compares these photos with each part of the query, and drops those like unliked photos."""
        by_vector, by_word, likeness, by_thing = np.zeros(len(rows), np.float32), None, None, None
        vectors, ids = self.index.vectors.of(rows), self.index.ids[rows]
        ret = Tokens.of_ret(vectors)
        if query.sketch is not None:
            priors = self._remembered(self._priors, rows, ret, self._matcher.priors)
            of_things = self._matcher.scores(query.sketch, ret, "ret", priors)
            by_vector, by_thing = (of_things[0], None) if len(of_things) == 1 else (of_things.mean(axis=0), of_things.T)
        if isinstance(query.word, np.ndarray):
            by_word = self._by_clip(query.word, rows)
        elif query.word is not None:
            levels = self._remembered(self._levels, rows, ret, self._matcher.word_levels)
            of_words = [logsumexp(self._matcher.word_scores(ret, thing, levels).T) for thing in query.word]
            # For 25 pairs of things, 0.35 of the first photos show both by the mean, 0.29 by the minimum.
            by_word = np.mean(of_words, axis=0)
        if query.liked is not None:
            likeness = likeness_to(query.liked, vectors, query.mean)
        found = Nearest(rows, ids, by_vector, by_word, likeness, by_thing=by_thing)
        if query.unliked is None:
            return found
        # A photo stays if it looks more like a liked one: disliking a black cat but liking a white one still means
        # cats.
        unlike = likeness_to(query.unliked, vectors, query.mean)
        gone = (unlike > ALIKE) & (unlike >= (-1 if likeness is None else likeness)) & ~np.isin(ids, query.liked_ids)
        return found[~gone & ~np.isin(ids, query.unliked_ids)]

    def _remembered(
        self, known: Scores, rows: PhotoRows, ret: Tokens, compute: Callable[[Tokens], Floats | None]
    ) -> Floats | None:
        """Returns the property of each of these photos, (m,), computed if missing from ``known`` and kept there."""
        missing = np.flatnonzero(np.isnan(known[rows]))
        if len(missing):
            computed = compute(ret[missing])
            if computed is None:
                return None
            known[rows[missing]] = computed
        values: Floats = known[rows]
        return values

    def matches(self, query: ShardQuery, rows: PhotoRows) -> Scores:
        scores, order = np.empty(len(rows), np.float32), self.index.reading_order(rows)
        for start in range(0, len(rows), MATCHED_AT_ONCE):
            # Only queries by vectors alone may have no tokens.
            assert query.sketch is not None
            some = order[start : start + MATCHED_AT_ONCE]
            scores[some] = best_matches(query.sketch, self.tokens(rows[some]))
        return scores

    def scored(self, query: ShardQuery, rows: PhotoRows, wanted: NDArray[np.int64]) -> Scored:
        vectors = self.index.vectors.of(rows).astype(np.float16)
        fits = self.matched(query, rows).scores.mean(axis=0) if query.things else None
        rows, scores = rows[wanted], np.empty(len(wanted), np.float32)
        order, portion = self.index.reading_order(rows), BATCHED * self._matcher.chunk
        for start in range(0, len(rows), portion):
            some = order[start : start + portion]
            scores[some] = query.scores(self._matcher, self.tokens(rows[some]))
        return vectors, scores, fits

    def matched(self, query: ShardQuery, rows: PhotoRows) -> Matched:
        order, parts = self.index.reading_order(rows), list[Matched]()
        directions = self._matcher.thing_directions(query.things)
        # Once for no photos, too.
        for start in range(0, max(1, len(rows)), REGIONS_AT_ONCE):
            regions, colours = self.index.photo_regions(rows[order[start : start + REGIONS_AT_ONCE]])
            parts.append(sought(query.things, directions, regions, colours, query.places))
        return Matched.joined(parts)[np.argsort(order)]

    @property
    def _embeddings(self) -> Vectors:
        if self.index.embeddings is None:
            raise IndexRefused(f"the index has no CLIP vectors; {REPAIR}.")
        return self.index.embeddings

    def _by_clip(self, vector: Floats, rows: PhotoRows) -> Scores:
        """Multiplies a vector (e,) by CLIP's vectors of these photos, (m,) float32."""
        scores: Scores = self._embeddings.of(rows) @ vector
        if not np.isfinite(scores).all():
            raise IndexRefused(f"the CLIP vectors of the index are damaged; {REPAIR}.")
        return scores

    def passing(self, wanted: PhotoFilter) -> NDArray[np.int64]:
        return self.index.vectors.passing(self._passing(wanted))

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

    def tokens(self, rows: PhotoRows) -> Tokens:
        return self.index.photo_tokens(rows)

    def nearness(self, given: Tokens, modality: Modality, mean: Floats | None = None) -> tuple[Ids, Scores]:
        """mean: (d,) of all vectors of the gallery, if this is one of its shards."""
        near = [np.empty(0, np.float32)]
        for start in range(0, self.photo_count, BLOCK):
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

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        return self.index.part_of_photo(photo, size, start, count)

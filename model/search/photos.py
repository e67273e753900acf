"""Searches photos whose arrays are at hand: finds those in the opened clusters by vector, and scores them."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine import Floats, Tokens, expectations, logsumexp, unit
from sketch_search.model.engine.detector import KINDS, NO_KIND, no_boxes
from sketch_search.model.engine.tokens import dequantize, round_tokens, unpack
from sketch_search.model.errors import GalleryUnusable
from sketch_search.model.limits import pause
from sketch_search.model.matcher import Matcher
from sketch_search.model.ranking import best_matches, likeness_to
from sketch_search.model.search.candidates import (
    BOXED,
    Clusters,
    Gallery,
    Nearest,
    PhotoRows,
    Query,
    Scored,
    Scores,
    best_first,
)
from sketch_search.model.search.clusters import Mask, Vectors, cluster, default_clusters, mean_tokens, unite
from sketch_search.model.things import Matched, fit_boxes, match_things

# Before all scores, clusters are searched by the cosine alone: for so many times the query's count, at least so many.
FOUND_FOR_ONE, FOUND_AT_LEAST = 4, 4096
# Photos whose vectors are compared at a time: some 12 MiB with the default network.
BLOCK = 1 << 14
# Read at a time, as much as the CPU's cache holds: chunks of the matcher, photos with tokens, and with regions.
BATCHED, MATCHED_AT_ONCE, REGIONS_AT_ONCE = 2, 128, 256
# Photos, in even distances, by which a gallery tells what it shows, when it is first searched.
SHOWING = 128
# The least probability of a kind whose photos become candidates by their boxes.
LEAST_KIND = 0.01
# Filters whose photos are kept, a byte for each photo of the gallery: during drawing, one is reused.
FILTERS_KEPT = 16
_REPAIR = "build this index again (`sketch-search index build`)"


class Photos(Protocol):
    """Holds what a search reads of p photos. They lie one cluster after the other, by id within each, then their parts.

    ids: (p,). parts: (q,) which of these rows are of parts, whose ids are their photos'. vectors: their [Ret].
    embeddings: CLIP's vectors; None if the photos were not clustered by these.
    """

    @property
    def ids(self) -> NDArray[np.int64]: ...

    @property
    def parts(self) -> NDArray[np.int64]: ...

    @property
    def vectors(self) -> Vectors: ...

    @property
    def embeddings(self) -> Vectors | None: ...

    def filter_mask(self, photo_filter: Any) -> Mask:
        """Returns which photos pass a filter, (p,)."""

    def reading_order(self, photo_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the indices (m,) of these rows in the order in which reading them is fastest."""

    def photo_tokens(self, photo_rows: NDArray[np.int64], *, scaled: bool = True) -> Tokens:
        """Reads the tokens of these photos, features (m, n, d) float32; as kept in int8 if they need not be scaled."""

    def photo_regions(self, photo_rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """Reads the regions of these photos, (m, g, r / 2) packed, and their colours, (m, g, 3), as CIELAB."""

    def photo_boxes(self, photo_rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Reads the boxes of these photos, (m, BOXES, 6), as ``Detector.detect`` finds them."""


class PhotoGallery(Gallery):
    """Photos whose arrays can be read here, and the network that made them."""

    def __init__(
        self, photos: Photos, matcher: Matcher, clusters: Clusters, tokens: int, regions: int, boxes: bool
    ) -> None:
        """tokens, regions: how many are kept of each photo. boxes: whether any are."""
        self._photos, self._matcher, self.clusters = photos, matcher, clusters
        self.tokens_kept, self.regions_kept, self.boxes_kept = tokens, regions, boxes
        self._filter_mask: Callable[[Hashable], Mask] = lru_cache(maxsize=FILTERS_KEPT)(photos.filter_mask)
        # They depend only on the photo. They are computed when first needed, and each takes four bytes a photo.
        self._priors, self._levels, self._nearness = (np.full(len(photos.ids), np.nan, np.float32) for _ in range(3))

    @cached_property
    def presence(self) -> Floats | None:
        """(2, k) float32, how much its photos show each thing to guess (``Vocabulary.presence``)."""
        vocabulary = self._matcher.engine.vocabulary
        wholes = np.delete(np.arange(len(self._photos.ids)), self._photos.parts)
        if vocabulary is None or not len(wholes):
            return None
        rows = wholes[np.linspace(0, len(wholes) - 1, min(len(wholes), SHOWING)).astype(np.int64)]
        regions = unpack(self._photos.photo_regions(rows)[0]) if self.regions_kept else None
        return vocabulary.presence(self._photos.vectors.of(rows), regions)

    @cached_property
    def expects(self) -> Floats | None:
        return None if self.presence is None else expectations(self.presence)

    def nearest(self, query: Query) -> Nearest:
        rows = self._near(query)
        blocks = np.split(rows, range(BLOCK, len(rows), BLOCK))
        nearest = Nearest.joined([self._compare(block, query) for block in blocks])
        # To look for ids among those of a large gallery takes time.
        more, by_box = np.flatnonzero(np.isin(self._photos.ids, query.also)) if len(query.also) else query.also, None
        if query.boxes_count:
            by_box = self._by_box(query)
            best = np.flatnonzero(by_box)
            more = np.union1d(more, best[best_first(self._photos.ids[best], by_box[best], BOXED)])
        if len(more := np.setdiff1d(more, nearest.rows)):
            nearest = Nearest.joined([nearest, self._compare(more, replace(query, count=None))])
        if by_box is not None:
            nearest = replace(nearest, by_box=by_box[nearest.rows])
        return (nearest.once() if len(self._photos.parts) else nearest).best(query)

    def _by_box(self, query: Query) -> Scores:
        """Computes how well boxes of all photos fit the things of a query, (p,): 0 for filtered ones, and by chance."""
        by_box, kinds = np.zeros(len(self._photos.ids), np.float32), self._matcher.thing_kinds(query.things)
        kinds[kinds <= LEAST_KIND] = 0
        rows = unite([np.empty(0, np.int64), *(self._with_kind[kind] for kind in np.flatnonzero(kinds.any(axis=0)))])
        if query.photo_filter is not None:
            rows = rows[self._filter_mask(query.photo_filter)[rows]]
        for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
            pause()
            fits = fit_boxes(query.things, kinds, self._photos.photo_boxes(block), placed=query.places > 0).best
            by_box[block] = fits.mean(axis=0)
        return by_box

    @cached_property
    def _with_kind(self) -> list[PhotoRows]:
        """The photos with a box of each kind, ascending: four bytes for each kind that a photo shows."""
        rows, kinds = list[NDArray[np.int32]](), list[NDArray[np.uint8]]()
        photos = np.arange(len(self._photos.ids) if self.boxes_kept else 0)
        for block in np.split(photos, range(BLOCK, len(photos), BLOCK)):
            shown = self._photos.photo_boxes(block)[..., 0]
            number, slot = np.nonzero(shown != NO_KIND)
            rows.append(block[number].astype(np.int32))
            kinds.append(shown[number, slot])
        of_kind = np.concatenate(kinds)
        order = np.argsort(of_kind, kind="stable")
        starts = np.searchsorted(of_kind[order], np.arange(1, len(KINDS)))
        return [np.unique(part) for part in np.split(np.concatenate(rows)[order], starts)]

    def _near(self, query: Query) -> PhotoRows:
        """Returns photos of the opened clusters that include all candidates, (m,) ascending."""
        mask = None if query.photo_filter is None else self._filter_mask(query.photo_filter)
        vectors, clusters = self._photos.vectors, query.clusters
        if query.count is None:
            rows = vectors.rows_of(clusters)
            return rows if mask is None else rows[mask[rows]]
        count = max(FOUND_AT_LEAST, FOUND_FOR_ONE * query.count)
        # Parts are few, and what they show is seldom what other photos of their cluster show.
        parts = self._photos.parts
        sets = [parts if mask is None else parts[mask[parts]]]
        if query.sketch is not None:
            sets.append(vectors.near(query.sketch.ret, count, mask, clusters))
        if query.liked is not None:
            sets.append(vectors.near(query.liked - query.mean, count, mask, clusters))
            liked = np.flatnonzero(np.isin(self._photos.ids, query.liked_ids))
            sets.append(liked if mask is None else liked[mask[liked]])
        if isinstance(query.word, np.ndarray):
            sets.append(self._embeddings.near(query.word[None], count, mask, clusters))
        elif query.word is not None:
            directions = np.stack([self._matcher.word_direction(thing) for thing in query.word])
            sets.append(vectors.near(directions, count, mask, clusters))
        return unite(sets)

    def _compare(self, rows: PhotoRows, query: Query) -> Nearest:
        pause()
        by_vector, by_word, likeness, by_thing = np.zeros(len(rows), np.float32), None, None, None
        vectors, ids = self._photos.vectors.of(rows), self._photos.ids[rows]
        ret = Tokens.of_ret(vectors)
        if query.sketch is not None:
            priors = self._recall(self._priors, rows, ret, self._matcher.priors)
            nearness = self._recall(self._nearness, rows, ret, self._matcher.nearness)
            if query.parts == len(query.sketch) and query.count is not None and len(rows) > query.count:
                most = query.count + len(self._photos.parts)
                near = self._matcher.may_be_nearest(query.sketch, ret, most, priors, nearness)
                rows, ids, ret = rows[near], ids[near], ret[near]
                priors, nearness = (None if known is None else known[near] for known in (priors, nearness))
            of_things = self._matcher.scores(query.sketch, ret, "ret", priors, nearness)
            by_vector, by_thing = (of_things[0], None) if len(of_things) == 1 else (of_things.mean(axis=0), of_things.T)
        if isinstance(query.word, np.ndarray):
            by_word = np.asarray(self._embeddings.of(rows) @ query.word)
            if not np.isfinite(by_word).all():
                raise GalleryUnusable(f"the CLIP vectors of the index are damaged; {_REPAIR}.")
        elif query.word is not None:
            levels = self._recall(self._levels, rows, ret, self._matcher.word_levels)
            of_words = [logsumexp(self._matcher.word_scores(ret, thing, levels).T) for thing in query.word]
            # By the mean more of the first photos show several things than by the minimum.
            by_word = np.mean(of_words, axis=0)
        if query.liked is not None:
            likeness = likeness_to(query.liked, vectors, query.mean)
        return Nearest(rows, ids, by_vector, by_word, likeness, by_thing=by_thing)

    def _recall(
        self, known: Scores, rows: PhotoRows, ret: Tokens, compute: Callable[[Tokens], Floats | None]
    ) -> Floats | None:
        """Returns the property of each of these photos, (m,), computed if missing from ``known`` and kept there."""
        missing = np.flatnonzero(np.isnan(known[rows]))
        if len(missing):
            computed = compute(ret[missing])
            if computed is None:
                return None
            known[rows[missing]] = computed
        return np.asarray(known[rows])

    def matches(self, query: Query, rows: PhotoRows) -> Scores:
        scores, order = np.empty(len(rows), np.float32), self._photos.reading_order(rows)
        for start in range(0, len(rows), MATCHED_AT_ONCE):
            pause()
            # Only queries by vectors alone may have no tokens.
            assert query.sketch is not None
            block = order[start : start + MATCHED_AT_ONCE]
            # Cosines do not depend on scales.
            scores[block] = best_matches(query.sketch, self._photos.photo_tokens(rows[block], scaled=False))
        return scores

    def scored(self, query: Query, rows: PhotoRows, to_score: NDArray[np.int64]) -> Scored:
        vectors = self._photos.vectors.kept(rows)
        matched = self.matched(query, rows) if query.things else None
        rows, scores = rows[to_score], np.empty(len(to_score), np.float32)
        order, portion = self._photos.reading_order(rows), BATCHED * self._matcher.chunk
        for start in range(0, len(rows), portion):
            pause()
            block = order[start : start + portion]
            scores[block] = query.scores(self._matcher, self.tokens(rows[block]))
        return vectors, scores, matched

    def matched(self, query: Query, rows: PhotoRows) -> Matched:
        order, parts = self._photos.reading_order(rows), list[Matched]()
        directions, kinds = (of(query.things) for of in (self._matcher.thing_directions, self._matcher.thing_kinds))
        # Once for no photos, too.
        for start in range(0, max(1, len(rows)), REGIONS_AT_ONCE):
            pause()
            block = rows[order[start : start + REGIONS_AT_ONCE]]
            regions, colours = self._photos.photo_regions(block)
            of_photos = regions, colours, kinds, self._photos.photo_boxes(block)
            parts.append(match_things(query.things, directions, *of_photos, query.places, find_extents=query.extents))
        return Matched.joined(parts)[np.argsort(order)]

    @property
    def _embeddings(self) -> Vectors:
        if self._photos.embeddings is None:
            raise GalleryUnusable(f"the index has no CLIP vectors; {_REPAIR}.")
        return self._photos.embeddings

    @property
    def ids(self) -> NDArray[np.int64]:
        """(p,): the photos' ids, by row."""
        return self._photos.ids

    def count_passing(self, photo_filter: Hashable) -> NDArray[np.int64]:
        mask = self._filter_mask(photo_filter)
        if len(self._photos.parts):
            mask = mask.copy()
            mask[self._photos.parts] = False
        return self._photos.vectors.count_passing(mask)

    def tokens(self, rows: PhotoRows) -> Tokens:
        return self._photos.photo_tokens(rows)


@dataclass(frozen=True)
class _InMemory:
    """Photos in memory, kept as an index keeps them; see ``Photos``. ids: their rows in ``arrays``."""

    ids: NDArray[np.int64]
    vectors: Vectors
    arrays: Mapping[str, NDArray[Any]]
    embeddings: Vectors | None = None
    parts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def filter_mask(self, photo_filter: Any) -> Mask:
        return np.ones(len(self.ids), np.bool_)

    def reading_order(self, photo_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(len(photo_rows))

    def photo_tokens(self, photo_rows: NDArray[np.int64], *, scaled: bool = True) -> Tokens:
        if self.arrays["tokens"].shape[1] == 1:
            return Tokens.of_ret(self.vectors.of(photo_rows))
        tokens, scales, positions = (self._take(photo_rows, name) for name in ("tokens", "scales", "positions"))
        return Tokens(dequantize(tokens, scales) if scaled else tokens, positions.astype(np.int64))

    def photo_regions(self, photo_rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        return self._take(photo_rows, "regions"), self._take(photo_rows, "colours")

    def photo_boxes(self, photo_rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._take(photo_rows, "boxes") if "boxes" in self.arrays else no_boxes(len(photo_rows))

    def _take(self, photo_rows: NDArray[np.int64], name: str) -> NDArray[Any]:
        return self.arrays[name][self.ids[photo_rows]]


def gallery_of(
    photos: Tokens, matcher: Matcher, count: int | None = None, clustered_by: Floats | None = None
) -> PhotoGallery:
    """Makes a gallery in memory of photos (p), with the clusters and the rounding of an index; ids are 0 to p - 1.

    count: of clusters; None for an index's default. clustered_by: (p, e) of length 1; None for [Ret].
    """
    vectors = unit(photos.ret).astype(np.float16)
    points = vectors.astype(np.float32) if clustered_by is None else clustered_by
    labels = cluster(points, count or default_clusters(len(photos)))
    order, sizes = np.argsort(labels, kind="stable"), np.bincount(labels)
    ends, regions = np.cumsum(sizes)[:-1], 0 if photos.regions is None else photos.regions.shape[1]
    centroids = np.stack([vectors[photos_of].astype(np.float32).mean(axis=0) for photos_of in np.split(order, ends)])
    kept = _InMemory(order, Vectors(vectors[order], sizes, centroids), round_tokens(photos))
    rows_of = np.split(np.arange(len(order)), ends)
    means = Tokens.cat([mean_tokens([kept.photo_tokens(rows)]) for rows in rows_of])
    clusters = Clusters(sizes, centroids, means.features.astype(np.float16), means.positions.astype(np.uint8))
    return PhotoGallery(kept, matcher, clusters, photos.features.shape[1], regions, photos.boxes is not None)

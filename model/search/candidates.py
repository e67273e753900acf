"""Defines a gallery, its query, ``Query``, and its answer, ``Candidates``, with a row for each photo.

Both hold numpy arrays, since a gallery may be on other machines: the results of all shards are joined, and
``Nearest.best`` keeps what a single index would have found.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine import Floats, Method, Tokens, unit
from sketch_search.model.engine.tokens import join_columns
from sketch_search.model.errors import GalleryUnusable
from sketch_search.model.matcher import Matcher
from sketch_search.model.ranking import NAMED, evidence_of_likes, evidence_of_words, promise
from sketch_search.model.search.clusters import unite
from sketch_search.model.things import Matched, Thing

Ids: TypeAlias = NDArray[np.int64]
#: Photos by their rows in a gallery: one cluster after the other, by id within each.
PhotoRows: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
#: A query's words: of each thing, numbers of words of the vocabulary, any of which counts; or CLIP's vector of a text.
Word: TypeAlias = tuple[tuple[int, ...], ...] | NDArray[np.float32]

# The best photos by vector whose tokens are matched with the sketch's, to choose those that the method scores.
MATCHED = 400
# Photos that enter the ranking as the most similar ones to liked photos, and as those whose boxes fit things best.
NEAREST, BOXED = 300, 300


def best_first(ids: Ids, scores: Scores, count: int | None = None) -> NDArray[np.int64]:
    """Returns the indices of the ``count`` best scores, best first; equal scores by id."""
    if count is None or count >= len(scores):
        return np.lexsort((ids, -scores))
    # Sorting all of a large gallery would cost more than comparing its vectors.
    least = np.partition(scores, -count)[-count] if count else np.inf
    chosen = np.flatnonzero(scores >= least)
    return chosen[np.lexsort((ids[chosen], -scores[chosen]))][:count]


def first_of_each(ids: Ids, scores: Scores) -> NDArray[np.int64]:
    """Returns the indices of the best score of each photo, ascending; of equal ones the first."""
    order = np.lexsort((-scores, ids))
    return np.sort(order[np.diff(ids[order], prepend=-1) > 0])


def most_alike(parts: Sequence[tuple[Ids, Scores]], count: int) -> tuple[Ids, Scores]:
    """Joins photos and their likenesses, and keeps the ``count`` best, best first."""
    ids, near = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    best = best_first(ids, near, count)
    return ids[best], near[best]


def interleave(orders: Sequence[NDArray[np.int64]], first: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Returns the members of rankings of equal length in turns, each once, after those of ``first``."""
    turns = np.stack(orders, axis=1).ravel()
    members = turns if first is None else np.concatenate([first, turns])
    _, first_seen = np.unique(members, return_index=True)
    return members[np.sort(first_seen)]


@dataclass(frozen=True)
class Query:
    """An encoded query, the clusters to open, and how many photos to return.

    method: what scores photos; "ret" compares vectors alone.
    plain: whether the relation network scores alone, without prior and guesses.
    mean: (d,) the mean of all vectors of the gallery.
    sketch: the query's tokens: the sketch's, a batch of one, or of all things of a drawing; without one, one [Ret] near
        liked photos, or near those of the word.
    things: those to find in the regions of photos. places: the weight of their places. extents: whether to find how far
        they reach. drawing_direction: (d,) that of the whole drawing, as long as it counts beside several things.
    readings: other ways to read the drawing: what is one thing, and what words name. probability: of each. worded:
        whether words name its things, or else only make photos likelier.
    also: (a,) ids of photos that become candidates in any case, since another reading finds them.
    photo_filter: which photos may be found, as the gallery understands it; None for all.
    liked: (l, d) vectors of photos. liked_ids: of those in the gallery.
    unliked, unliked_ids, unliked_rows: (u, d) vectors, ids and (u,) rows of unwanted photos. unliked_kinds: (u,)
        whether those that look like them are unwanted, too.
    homes: (h,) the clusters of the liked photos in the whole gallery, which are opened in any case.
    clusters: (n,) int64 ascending, the clusters to open.
    count: how many photos become candidates, the best by vector, and as many more by the word; None for all.
    rerank: how many of them ``method`` scores; None for all.
    """

    method: Method
    mean: Floats
    sketch: Tokens | None = None
    things: tuple[Thing, ...] = ()
    places: float = 0.0
    extents: bool = False
    drawing_direction: Floats | None = None
    word: Word | None = None
    readings: tuple[Query, ...] = ()
    probability: float = 1.0
    worded: bool = True
    also: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    photo_filter: Hashable | None = None
    liked: Floats | None = None
    liked_ids: tuple[int, ...] = ()
    unliked: Floats | None = None
    unliked_ids: tuple[int, ...] = ()
    unliked_rows: PhotoRows = field(default_factory=lambda: np.empty(0, np.int64))
    unliked_kinds: Mask = field(default_factory=lambda: np.empty(0, np.bool_))
    homes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    clusters: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    count: int | None = None
    rerank: int | None = None
    plain: bool = False

    @property
    def matches(self) -> bool:
        """Whether best matches of tokens choose the photos that ``method`` scores: if it scores only some of many."""
        chooses = self.rerank is not None and self.rerank < min(MATCHED, self.count or MATCHED)
        return chooses and self.method not in ("ret", "things")

    @property
    def parts(self) -> int:
        """Counts the parts of the query that choose clusters: each thing drawn, the word, and each liked photo."""
        words = len(self.word) if isinstance(self.word, tuple) else int(self.word is not None)
        return (1 if self.sketch is None else len(self.sketch)) + words + (0 if self.liked is None else len(self.liked))

    @property
    def boxes_count(self) -> bool:
        """Whether photos become candidates by their boxes, whatever their clusters."""
        return bool(self.things) and self.count is not None

    def scores(self, matcher: Matcher, tokens: Tokens) -> Scores:
        """Scores photos or centroids by the query's method: (p,)."""
        # Only queries by vectors alone may have no tokens.
        assert self.sketch is not None
        if self.plain:
            return np.asarray(matcher.plain_scores(self.sketch, tokens)[0])
        return np.asarray(matcher.scores(self.sketch, tokens, self.method)[0])


@dataclass(frozen=True)
class Nearest:
    """Photos whose vectors are near a query, in the order of ``rows``.

    rows, ids: (m,) their rows in the gallery, and their ids.
    by_vector: (m,) float32, the query's score with each by [Ret]; of several things, their mean.
    by_thing: (m, t) float32, the scores of each of several things; None for one.
    by_word: (m,) float32, how much each shows the thing that the word names, as logits, the mean of several things;
        None without a word.
    likeness: (m,) float32, the similarity of each to the most similar liked photo, -1 to 1; None without one.
    promise: (m,) float32, by vector and by best matches of tokens (``model.ranking.promise``); None if these do not
        choose the photos to score.
    by_box: (m,) float32, how well boxes of each fit the things of the query, the mean; None without such things.
    """

    rows: PhotoRows
    ids: Ids
    by_vector: Scores
    by_word: Scores | None = None
    likeness: Scores | None = None
    promise: Scores | None = None
    by_thing: Scores | None = None
    by_box: Scores | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.int64] | Mask | slice) -> Self:
        return replace(self, **{name: column[chosen] for name, column in vars(self).items() if column is not None})

    @staticmethod
    def joined(parts: Sequence[Nearest]) -> Nearest:
        """Joins photos in the order of their rows."""
        photos = Nearest(**join_columns(parts))
        return photos[np.argsort(photos.rows)]

    @staticmethod
    def nothing(query: Query) -> Nearest:
        """Returns no photos, with the columns of the query."""
        rows, none = np.empty(0, np.int64), np.empty(0, np.float32)
        by_word, likeness = None if query.word is None else none, None if query.liked is None else none
        things = 1 if query.sketch is None else len(query.sketch)
        by_thing = np.empty((0, things), np.float32) if things > 1 else None
        by_box = none if query.boxes_count else None
        return Nearest(rows, rows, none, by_word, likeness, by_thing=by_thing, by_box=by_box)

    def rankings(self, query: Query) -> list[tuple[Scores, int]]:
        """Returns the columns whose best photos become candidates, and the number of photos from each."""
        assert query.count is not None
        columns = [] if query.sketch is None else [(self.by_vector, query.count)]
        if self.likeness is not None:
            columns.append((self.likeness, NEAREST))
        if self.by_word is not None:
            columns.append((self.by_word, query.count))
        if self.by_thing is not None:
            columns += [(column, query.count) for column in self.by_thing.T]
        if self.by_box is not None:
            columns.append((self.by_box, min(BOXED, int((self.by_box > 0).sum()))))
        return columns

    def once(self) -> Self:
        """Keeps the best row of each photo by vector, boxes, liked photos and words, whatever others there are."""
        by_word = None if self.by_word is None else np.float32(NAMED) * self.by_word
        columns = self.by_vector, self.by_box, self.likeness, by_word
        best = np.sum([column for column in columns if column is not None], axis=0)
        return self[first_of_each(self.ids, best)]

    def best(self, query: Query) -> Self:
        """Keeps the photos that become candidates."""
        if query.count is None:
            return self
        chosen = [best_first(self.ids, column, count) for column, count in self.rankings(query)]
        # The liked ones are the nearest to themselves, but others may be as near.
        chosen.append(np.flatnonzero(np.isin(self.ids, [*query.liked_ids, *query.also])))
        return self[unite(chosen)]

    @property
    def kind(self) -> Scores | None:
        """(m,): the evidence of liked photos and words, which say the kind; None without either."""
        likes = None if self.likeness is None else evidence_of_likes(self.likeness)
        words = None if self.by_word is None else evidence_of_words(self.by_word)
        return likes if words is None else words if likes is None else likes + words

    def most_promising(self, promise: Scores, count: int) -> NDArray[np.int64]:
        """Returns the indices of the photos with the highest promise; half of them of the kind, if it is known."""
        kind = self.kind
        of_kind = 0 if kind is None else count // 2
        chosen = best_first(self.ids, promise, count - of_kind)
        if kind is None or not of_kind:
            return chosen
        more = best_first(self.ids, promise + kind, count)
        return np.concatenate([chosen, more[~np.isin(more, chosen)][:of_kind]])

    def to_score(self, query: Query) -> NDArray[np.int64]:
        """Returns the indices of the photos to score, most promising first."""
        if query.rerank is None or query.method == "things":
            return best_first(self.ids, self.by_vector)
        chosen = self.most_promising(self.by_vector if self.promise is None else self.promise, query.rerank)
        liked = np.flatnonzero(np.isin(self.ids, query.liked_ids))
        return np.concatenate([liked, chosen[~np.isin(chosen, liked)]])[: max(query.rerank, len(liked))]

    def known_scores(self, query: Query, known: Candidates | None) -> tuple[Scores, NDArray[np.int64]]:
        """Returns the scores known from the same search, (m,), and the indices of the photos still to score."""
        if query.method == "ret":
            return self.by_vector, np.empty(0, np.int64)
        if query.method == "things":
            # All candidates are compared by regions.
            return np.full(len(self), np.nan, np.float32), np.empty(0, np.int64)
        scores, to_score = np.full(len(self), np.nan, np.float32), self.to_score(query)
        if known is not None:
            _, here, there = np.intersect1d(self.rows[to_score], known.rows, return_indices=True)
            scores[to_score[here]] = known.scores[there]
        return scores, to_score[np.isnan(scores[to_score])]


@dataclass(frozen=True, kw_only=True)
class Candidates(Nearest):
    """Photos found and scored, in the order of ``rows`` until they are ranked.

    vectors: (m, d) float16, as they are kept.
    scores: (m,) float32; not a number for a photo that was not scored. Diffusion, likes and words change them.
    before: (m,) the scores before diffusion; None if more than diffusion has changed them.
    matched: the regions that match the things of the drawing best; None without such things.
    region_scores: (m,) their scores, the mean of the things; diffused for a single one.
    shown: (m, t) the log-odds that each photo shows each thing that the query asks for (``terms.asked_of``); None if
        the checkpoint has no weights for that.
    firsts: (m,) the row of the candidate that represents this one: its own, unless it is a near duplicate of an earlier
        one. None if nothing was to be folded.
    """

    vectors: NDArray[np.float16]
    scores: Scores
    before: Scores | None = None
    matched: Matched | None = None
    region_scores: Scores | None = None
    shown: Floats | None = None
    firsts: NDArray[np.int64] | None = None

    @property
    def scored(self) -> Mask:
        """(m,): whether a photo has a score."""
        return np.asarray(np.isfinite(self.scores))

    @property
    def results(self) -> NDArray[np.int64]:
        """(r,): the rows of the candidates that are not folded into another one."""
        rows = np.arange(len(self))
        return rows if self.firsts is None else np.flatnonzero(self.firsts == rows)

    def copies(self, row: int) -> tuple[int, ...] | None:
        """Returns the ids of the near duplicates folded into a row; None if nothing was to be folded."""
        return None if self.firsts is None else tuple(self.ids[self.firsts == row][1:].tolist())


# A gallery with this many clusters has a second level above them, since sorting all would take longer than scoring.
MANY_CLUSTERS = 100_000
# Clusters found for each part of a query, 64 times as many as are opened, and clusters above that are opened for it.
NEAR_CLUSTERS, OPENED_ABOVE = 4096, 64


# The result of ``Gallery.scored``.
Scored: TypeAlias = tuple[NDArray[np.float16], Scores, Matched | None]


@dataclass(frozen=True)
class Clusters:
    """The clusters of a gallery, whose photos lie one cluster after the other.

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
        return rows >= (self.ends - self.rows + self.sizes)[self.of(rows)]

    @cached_property
    def mean(self) -> Floats:
        """(d,): the mean of all vectors of photos."""
        weights = self.sizes / max(1, self.sizes.sum())
        return np.asarray(weights @ self.vectors, np.float32)

    @cached_property
    def _above(self) -> Any:
        """The second level: about the square root of the clusters hold these as clusters hold photos."""
        import faiss

        kind, directions = f"IVF{round(math.sqrt(len(self.sizes)))},Flat", unit(self.vectors)
        above = faiss.index_factory(directions.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        above.train(directions)
        above.add(directions)
        faiss.extract_index_ivf(above).nprobe = OPENED_ABOVE
        return above

    def near(self, directions: Floats) -> NDArray[np.int64]:
        """Returns the clusters to compare with directions (q, d), ascending: all if they are few."""
        if len(self.sizes) < MANY_CLUSTERS:
            return np.arange(len(self.sizes))
        near = np.unique(self._above.search(np.ascontiguousarray(directions, np.float32), NEAR_CLUSTERS)[1])
        return near[near >= 0]

    def by_clip(self, vector: Floats) -> Scores:
        """Multiplies a vector of CLIP (e,) by the centroids by CLIP: (c,). Raises GalleryUnusable if lengths differ."""
        assert self.embeddings is not None
        if vector.shape != self.embeddings.shape[1:]:
            lengths = f"of length {self.embeddings.shape[1]}, but its model gives {len(vector)}"
            raise GalleryUnusable(f"the index has CLIP vectors {lengths}; delete the index folder and build again.")
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
        nearest = self.nearest(query)
        if query.matches and len(nearest):
            best = nearest.most_promising(nearest.by_vector, MATCHED)
            total = promise(nearest.by_vector, best, self.matches(query, nearest.rows[best]))
            nearest = replace(nearest, promise=total)
        scores, left = nearest.known_scores(query, known)
        vectors, scores[left], matched = self.scored(query, nearest.rows, left)
        region_scores = None if matched is None else matched.scores.mean(axis=0)
        if query.method == "things" and region_scores is not None:
            scores = region_scores
            if query.drawing_direction is not None:
                scores = region_scores + unit(vectors.astype(np.float32)) @ query.drawing_direction
        return Candidates(**vars(nearest), vectors=vectors, scores=scores, matched=matched, region_scores=region_scores)

    @abstractmethod
    def nearest(self, query: Query) -> Nearest:
        """Finds the photos of the opened clusters that become candidates, by vectors alone."""

    @abstractmethod
    def matches(self, query: Query, rows: PhotoRows) -> Scores:
        """Computes the best matches of the sketch's tokens and those of these photos, (m,)."""

    @abstractmethod
    def scored(self, query: Query, rows: PhotoRows, to_score: NDArray[np.int64]) -> Scored:
        """Reads the vectors of these photos, (m, d), and scores some of them by the query's method.

        to_score: (w,) the indices of those to score. Returns the vectors; the scores (w,); and with things the regions
        of all of these photos that match them best, else None.
        """

    @abstractmethod
    def count_passing(self, photo_filter: Any) -> NDArray[np.int64]:
        """Counts the photos of each cluster that pass a filter, (c,)."""

    @abstractmethod
    def tokens(self, rows: PhotoRows) -> Tokens:
        """Returns the tokens of these photos."""

    def paths(self, rows: PhotoRows) -> list[tuple[str, ...]]:
        """Returns the paths of each of these photos, as far as they are known."""
        return [()] * len(rows)

    @abstractmethod
    def matched(self, query: Query, rows: PhotoRows) -> Matched:
        """Returns the regions of these photos that match each thing best."""

"""Parts of an index as shards of their own, and links to shards in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from indexer import Index, PhotoEntry, PhotoFilter, UnknownPhoto, Vectors
from model import Matcher, Tokens
from service.gallery import (
    Call,
    Computed,
    Gallery,
    Layout,
    Overview,
    Pending,
    Round,
    Rows,
    Shard,
    ShardUnavailable,
    State,
)
from service.search import Searcher

T = TypeVar("T")


class PartOfIndex:
    """Some photos of an index, in all of its clusters, of which some may be empty. It has what a search reads."""

    def __init__(self, whole: Index, rows: Rows, name: str) -> None:
        """rows: of the whole index, ascending."""
        self._whole, self._rows = whole, rows
        self.generation, self.made, self.manifest = whole.generation, f"{whole.made}-{name}", whole.manifest
        self.embedder, self.tokens_kept = whole.embedder, whole.tokens_kept
        self.ids, self.photo_count, self.cluster_count = whole.ids[rows], len(rows), whole.cluster_count
        ends = np.cumsum(whole.cluster_sizes)
        clusters = np.searchsorted(ends, rows, side="right")
        self.cluster_sizes = np.bincount(clusters, minlength=whole.cluster_count)
        self.centroids = whole.centroids
        self.vectors = self._part(whole.vectors)
        self.embeddings = None if whole.embeddings is None else self._part(whole.embeddings)

    def _part(self, vectors: Vectors) -> Vectors:
        return Vectors(vectors.of(self._rows).numpy().astype(np.float16), self.cluster_sizes, vectors.centroids)

    def cluster_ids(self, number: int) -> Rows:
        return self.ids[self.vectors.rows_of(number)]

    def reading_order(self, places: Rows) -> Rows:
        return np.arange(len(places))

    def photo_tokens(self, places: Rows) -> Tokens:
        return self._whole.photo_tokens(self._rows[places])

    def photo(self, photo: int) -> PhotoEntry:
        entry = self._whole.photo(photo)
        if entry.id not in self.ids:
            raise UnknownPhoto(f"no photo has the id {photo}.")
        return entry

    def open_photo(self, photo: int) -> bytes:
        return self._whole.open_photo(photo)

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        return self._whole.part_of_photo(photo, size, start, count)

    def passing(self, wanted: PhotoFilter) -> NDArray[np.bool_]:
        return self._whole.passing(wanted)[self._rows]

    def close(self) -> None:
        """The whole index stays open."""


class LocalLink:
    """A link to a shard in this process.

    Attributes:
        asked: the questions so far. broken: whether it answers no more.
    """

    def __init__(self, name: str, shard: Shard) -> None:
        self.name, self._shard = name, shard
        self.asked: list[Call[Any]] = []
        self.broken = False

    def state(self) -> Pending[State]:
        return Computed(lambda: State(self._made()))

    def overview(self, made: str) -> Pending[Overview]:
        return Computed(self._shard.overview)

    def ask(self, made: str, question: Call[T]) -> Pending[T]:
        self.asked.append(question)

        def answer() -> T:
            assert made == self._made()
            return question.answer(self._shard)

        return Computed(answer)

    def _made(self) -> str:
        if self.broken:
            raise ShardUnavailable("it is broken")
        return self._shard.index.made


def shards_of(index: Index, matcher: Matcher, parts: Sequence[Rows]) -> list[LocalLink]:
    """A link to each part of an index; rows in each are ascending."""
    cut = [PartOfIndex(index, rows, str(number)) for number, rows in enumerate(parts)]
    return [LocalLink(f"shard-{number}", Shard(cast(Index, part), matcher)) for number, part in enumerate(cut)]


def gallery_of(links: Sequence[LocalLink]) -> Gallery:
    """The gallery of these shards, for one search."""
    overviews = [link.overview("").result(0) for link in links]
    ask = Round(links, [one.made for one in overviews], seconds=0)
    return Gallery(Layout(overviews, frozenset()), ask)


def searcher_of(links: Sequence[LocalLink], matcher: Matcher) -> Searcher:
    """A searcher for one search of these shards."""
    return Searcher(gallery_of(links), matcher)

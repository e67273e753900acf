"""The photos of one shard of a gallery, which is an index on this machine: found in its cells by vector, and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer import EmbedderEntry, Index, IndexRefused, Origin, PhotoEntry, PhotoFilter, UnknownPhoto, Vectors
from indexer.errors import REPAIR
from model import Matcher
from model.engine import Method, Modality, Tokens
from model.ranking import ALIKE, likeness_to
from service.gallery.table import Cells, Find, Floats, Ids, Mask, Rows, Scores, Table, check_length
from service.towers import TextVector

T_co = TypeVar("T_co", covariant=True)

# Cells are searched by the cosine alone. So many times as many photos are found there as are wanted, and so many at
# least, because the prior, and what else counts, puts them in another order. In a made gallery of 100,000 photos, 4,000
# of them held all of the first 96 by distance, and 1,000 held 0.995 of them.
FOUND_FOR_ONE, FOUND_AT_LEAST = 4, 4096
# Photos whose vectors are compared at a time: some 12 MiB with the default network.
BLOCK = 1 << 14
# Chunks of the matcher whose tokens are copied into memory at a time: 64 photos of the largest network take some 40
# MiB. More of the default network would not stay in the CPU's cache until they are scored.
BATCHED = 2
# Filters whose photos are kept, a byte for each photo of the gallery: while somebody draws, one is asked for again.
FILTERS_KEPT = 16


@dataclass(frozen=True)
class Overview:
    """A summary of a generation of a shard, which whoever searches must know before it can ask the shard.

    Attributes:
        made: names the generation, also among those of other indexes. generation: its name in the shard's folder.
        photos: how many it has. cells: the shard's.
        origin: the network that made the rows. embedder: what the photos were clustered by.
        shard: the shard itself, where it is in this process: its files stay open for as long as this is kept.
    """

    made: str
    generation: str
    photos: int
    cells: Cells
    origin: Origin
    embedder: EmbedderEntry
    shard: Shard | None = None


class Shard:
    """A generation of a shard, opened with the checkpoint that made its tokens. Rows and cells are counted in it.

    Tokens are read out of mapped files, which the system keeps in memory for as long as nothing else needs it. Threads
    may share it.

    Attributes:
        index: the generation. cells: what a query is compared with first.
    """

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self.index = index
        self.cells = Cells(
            index.cluster_sizes,
            index.vectors.centroids,
            index.centroids.features,
            index.centroids.positions.astype(np.uint8),
            None if index.embeddings is None else index.embeddings.centroids,
        )
        self._matcher = matcher
        self._passing: Callable[[PhotoFilter], Mask] = lru_cache(maxsize=FILTERS_KEPT)(index.passing)
        # Both depend on a photo alone. They are computed when they are first needed, and take four bytes a photo.
        self._priors, self._levels = (np.full(index.photo_count, np.nan, np.float32) for _ in range(2))

    def overview(self) -> Overview:
        """Summarises the shard. The summary refers to no open file, so the shard may close."""
        index = self.index
        origin, embedder = index.manifest.origin, index.embedder
        return Overview(index.made, index.generation, index.photo_count, self.cells, origin, embedder)

    # Questions that may come from another process.

    def passing(self, wanted: PhotoFilter) -> NDArray[np.int64]:
        """(c,): how many photos of each cell pass a filter."""
        return self.index.vectors.passing(self._passing(wanted))

    def rows_of_ids(self, ids: Sequence[int]) -> Rows:
        """(m,): where the photos are that files with these ids belong to; -1 for those that are in other shards."""
        return np.array([self._row_of(photo) for photo in ids], np.int64)

    def _row_of(self, photo: int) -> int:
        try:
            entry = self.index.photo(photo)
        except UnknownPhoto:
            return -1
        rows = self.index.vectors.rows_of(entry.cluster)
        return int(rows[np.searchsorted(self.index.ids[rows], entry.id)])

    def vectors(self, rows: Rows) -> Floats:
        """(m, d) float32: the vectors of these photos."""
        return self.index.vectors.of(rows)

    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """Returns the entries of these photos, in their order."""
        return tuple(self.index.photo(photo) for photo in self.index.ids[rows].tolist())

    def find(self, find: Find) -> Table:
        """Finds photos of the opened cells, the best by vector, by the word and by likeness, and scores them.

        Raises IndexRefused where what CLIP made of the photos is damaged.
        """
        begun = time.perf_counter()
        table = self._compared(self._candidates(find), find)
        if find.unliked is not None:
            table = table[~self._leaving(table, find, find.unliked)]
        table = table.best(find)
        if find.method == "ret" or find.method == "clip":
            return replace(table, scores=table.by_vector)
        return self._scored(table, find, find.method, begun)

    def _candidates(self, find: Find) -> Rows:
        """(m,) ascending: the photos of the opened cells among which are all that are looked for."""
        mask = None if find.wanted is None else self._passing(find.wanted)
        vectors, cells = self.index.vectors, find.cells
        if find.count is None:
            rows = vectors.rows_of(cells)
            return rows if mask is None else rows[mask[rows]]
        wanted = max(FOUND_AT_LEAST, FOUND_FOR_ONE * find.count)
        found = [np.empty(0, np.int64)]
        if find.clip is not None:
            found.append(self._embeddings.near(find.clip[None], wanted, mask, cells))
        elif find.sketch is not None:
            found.append(vectors.near(find.sketch.ret, wanted, mask, cells))
        if find.liked is not None:
            found.append(vectors.near(find.liked - find.mean, wanted, mask, cells))
            kept = np.flatnonzero(np.isin(self.index.ids, find.kept))
            found.append(kept if mask is None else kept[mask[kept]])
        if isinstance(find.word, TextVector):
            found.append(self._embeddings.near(find.word.values[None], wanted, mask, cells))
        elif find.word is not None:
            direction = self._matcher.word_direction(find.word)
            found.append(vectors.near(direction[None], wanted, mask, cells))
        return np.unique(np.concatenate(found))

    def _compared(self, rows: Rows, find: Find) -> Table:
        """Returns the table of these photos, before any is scored by more than vectors."""
        return Table.joined([self._compared_block(block, find) for block in _blocks(rows)])

    def _compared_block(self, rows: Rows, find: Find) -> Table:
        matcher, nothing = self._matcher, np.zeros(len(rows), np.float32)
        by_vector, by_word, likeness = nothing, nothing, nothing - 1
        values = self.index.vectors.of(rows)
        ret = Tokens.of_ret(values)
        if find.clip is not None:
            by_vector = self._by_clip(find.clip, rows)
        elif find.sketch is not None:
            priors = self._known(self._priors, rows, ret, matcher.priors)
            by_vector = matcher.scores(find.sketch, ret, "ret", priors)[0]
        if isinstance(find.word, TextVector):
            by_word = self._by_clip(find.word.values, rows)
        elif find.word is not None:
            levels = self._known(self._levels, rows, ret, matcher.word_levels)
            by_word = matcher.word_scores(ret, [find.word], levels)[0]
        if find.liked is not None:
            likeness = likeness_to(find.liked, values, find.mean)
        ids, cells = self.index.ids[rows], self.index.vectors.cells_of(rows)
        vectors = values.astype(np.float16)
        return Table(rows, ids, cells, vectors, by_vector, by_word, likeness, np.full(len(rows), np.nan, np.float32))

    def _known(
        self, known: Scores, rows: Rows, ret: Tokens, compute: Callable[[Tokens], Floats | None]
    ) -> Floats | None:
        """(m,): what is computed of each of these photos alone, and kept in ``known``; None where there is no such."""
        missing = np.flatnonzero(np.isnan(known[rows]))
        if len(missing):
            computed = compute(ret[missing])
            if computed is None:
                return None
            known[rows[missing]] = computed
        values: Floats = known[rows]
        return values

    def _leaving(self, table: Table, find: Find, unliked: Floats) -> Mask:
        """(m,): the photos that are unliked or of the kind of one that is.

        A photo stays if it looks more like a liked one: who likes a white cat, and not a black one, still wants cats.
        """
        to_unliked = likeness_to(unliked, table.vectors, find.mean)
        gone = (to_unliked > ALIKE) & (to_unliked >= table.likeness) & ~np.isin(table.ids, find.kept)
        leaving: Mask = gone | np.isin(table.ids, find.dropped)
        return leaving

    def _scored(self, table: Table, find: Find, method: Method, begun: float) -> Table:
        """Returns the table with the scores of the photos that the method is to score, as far as the time allows.

        With a limit they are scored in portions, of which the first is always scored.
        """
        wanted = table.to_score(find)
        # Only queries by vectors alone may have no tokens.
        assert find.sketch is not None
        sketch, scores = find.sketch, table.scores.copy()
        if find.budget_ms is None:
            scores[wanted] = self._pairs(sketch, table.rows[wanted], method)
            return replace(table, scores=scores)
        complete = True
        for start in range(0, len(wanted), self._matcher.chunk):
            if start and (time.perf_counter() - begun) * 1000 >= find.budget_ms:
                complete = False
                break
            portion = wanted[start : start + self._matcher.chunk]
            scores[portion] = self._pairs(sketch, table.rows[portion], method)
        return replace(table, scores=scores, complete=complete)

    def _pairs(self, sketch: Tokens, rows: Rows, method: Method) -> Scores:
        """(m,) float32: the sketch against these photos by cross-attention and relation network, in batches."""
        scores = np.empty(len(rows), np.float32)
        order = self.index.reading_order(rows)
        batch = BATCHED * self._matcher.chunk
        for start in range(0, len(rows), batch):
            some = order[start : start + batch]
            scores[some] = self._matcher.scores(sketch, self.tokens(rows[some]), method)[0]
        return scores

    @property
    def _embeddings(self) -> Vectors:
        if self.index.embeddings is None:
            raise IndexRefused(f"the index has no CLIP vectors; {REPAIR}.")
        return self.index.embeddings

    def _by_clip(self, vector: Floats, rows: Rows) -> Scores:
        """(m,) float32: a vector (e,) times what CLIP made of these photos. Raises IndexRefused: that is damaged."""
        embeddings = self._embeddings
        check_length(vector, embeddings.width)
        scores: Scores = embeddings.of(rows) @ vector
        if not np.isfinite(scores).all():
            raise IndexRefused(f"the CLIP vectors of the index are damaged; {REPAIR}.")
        return scores

    def tokens(self, rows: Rows) -> Tokens:
        """Reads the tokens of these photos."""
        return self.index.photo_tokens(rows)

    def all_ids(self) -> Ids:
        """(p,): the ids of all photos, by row."""
        return self.index.ids

    def nearness(self, given: Tokens, modality: Modality, mean: Floats) -> tuple[Ids, Scores]:
        """Returns the ids of all photos, and how near each is to a picture, a batch of one.

        It is minus the distance to a sketch, and the likeness to a photo. mean: (d,) that of the whole gallery.
        """
        matcher, near = self._matcher, [np.empty(0, np.float32)]
        for block in _blocks(np.arange(self.index.photo_count)):
            values = self.index.vectors.of(block)
            if modality == "photo":
                near.append(likeness_to(given.ret, values, mean))
            else:
                near.append(matcher.scores(given, Tokens.of_ret(values), "ret")[0])
        return self.index.ids, np.concatenate(near)


def _blocks(rows: Rows) -> list[Rows]:
    """Rows in blocks of as many photos as are compared at a time; at least one block."""
    return np.split(rows, range(BLOCK, len(rows), BLOCK))


class Call(Generic[T_co]):
    """A call of a method of a shard, or of its index: it goes to where the shard is, and is answered there.

    Attributes:
        name: of the method. arguments: numbers, strings, arrays of numpy, and records of them.
    """

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments

    def answer(self, shard: Shard) -> T_co:
        """Returns the answer, computed where the shard's files are."""
        found: T_co = getattr(shard if hasattr(shard, self.name) else shard.index, self.name)(*self.arguments)
        return found

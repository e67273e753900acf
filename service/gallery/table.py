"""The question of a search to a gallery, ``Find``, and its answer, ``Table``, with a row for each photo.

Both are arrays of numpy, since a gallery may be on other machines: what each shard finds is joined, and ``Table.best``
takes of all what one index would have found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer import IndexRefused, PhotoFilter
from model.engine import Floats, Tokens, unit
from model.ranking import ScoredBy
from service.towers import TextVector

Ids: TypeAlias = NDArray[np.int64]
#: Photos by their places in a gallery: one cell after the other, in each by id.
Rows: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
#: A word of a query: its number in the checkpoint's vocabulary, or a text as CLIP has it.
Word: TypeAlias = int | TextVector

# Photos that come into the ranking because they are the most similar ones to liked photos.
NEAREST = 300
# A gallery with this many cells has a second level of cells above them, which finds those that a query is compared
# with: sorting all of them would take longer than scoring photos.
MANY_CELLS = 100_000
# So many are found for each part of a query, 64 times as many as are opened, in so many of the cells above.
NEAR_CELLS, OPENED_ABOVE = 4096, 64


def best_first(ids: Ids, scores: Scores, count: int | None = None) -> NDArray[np.int64]:
    """Returns the indices in the order of falling score, the first ``count`` of them; equal scores by id."""
    if count is None or count >= len(scores):
        return np.lexsort((ids, -scores))
    # Sorting all of a large gallery would cost more than comparing its vectors.
    least = np.partition(scores, -count)[-count] if count else np.inf
    chosen = np.flatnonzero(scores >= least)
    return chosen[np.lexsort((ids[chosen], -scores[chosen]))][:count]


def interleaved(orders: Sequence[NDArray[np.int64]], first: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Returns the members of rankings of equal length by turns, each once. Those of ``first`` come before them."""
    turns = np.stack(orders, axis=1).ravel()
    every = turns if first is None else np.concatenate([first, turns])
    _, places = np.unique(every, return_index=True)
    return every[np.sort(places)]


@dataclass(frozen=True)
class Find:
    """The question that each shard is asked: the encoded query, the cells to open, and how many photos to return.

    Attributes:
        method: what scores photos; "ret" and "clip" compare vectors alone.
        mean: (d,) the mean of all vectors of the gallery.
        sketch: the query's tokens, a batch of one: the sketch's, or where photos are liked one [Ret] near theirs. None
            where nothing is compared with them.
        clip: (e,) the sketch by CLIP, where that is the method.
        word: the query's word. wanted: the filter that photos have to pass. None for none.
        liked, unliked: (l, d) and (u, d) vectors of photos. kept: ids of liked photos of the gallery.
        dropped: ids of unliked photos.
        cells: (n,) int64, the cells that are opened.
        count: how many photos come into the table, the best by vector, and so many more by the word; None for all of
            the opened cells.
        rerank: how many of them ``method`` scores; None for all.
        budget_ms: milliseconds after which no further photos are scored; None for no limit.
    """

    method: ScoredBy
    mean: Floats
    sketch: Tokens | None = None
    clip: Floats | None = None
    word: Word | None = None
    wanted: PhotoFilter | None = None
    liked: Floats | None = None
    unliked: Floats | None = None
    kept: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    cells: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    count: int | None = None
    rerank: int | None = None
    budget_ms: float | None = None

    def of_tokens(self, tokens: Tokens) -> Find:
        """This query with the tokens of a batch of one."""
        return replace(self, sketch=tokens)

    @property
    def parts(self) -> int:
        """Counts the parts of the query that choose cells: the sketch, the word, and each liked photo."""
        return 1 + (self.word is not None) + (0 if self.liked is None else len(self.liked))


@dataclass(frozen=True)
class Table:
    """Photos that were found, a row each: in the order of ``rows``, until they are put in the order of a ranking.

    Attributes:
        rows, ids, cells: (m,) int64, their places in the gallery, their ids, and the cells that they are in.
        vectors: (m, d) float16, as they are kept.
        by_vector: (m,) float32, the query's score with each by [Ret], or by CLIP where that is the method.
        by_word: (m,) how much each shows what the word names, as logits; 0 without a word.
        likeness: (m,) how much each looks like the most similar liked photo, -1 to 1; -1 without one.
        scores: (m,) by the method; not a number where it was not scored. Diffusion, likes and words change them.
        before: (m,) the scores before diffusion; None where a ranking is not changed by diffusion alone.
        firsts: (m,) the row of the photo that stands for this one: its own, unless it is a near duplicate of an earlier
            one. None where nothing was to be folded.
        complete: whether all were scored that were to be: the time may have been over before.
    """

    rows: Rows
    ids: Ids
    cells: NDArray[np.int64]
    vectors: NDArray[np.float16]
    by_vector: Scores
    by_word: Scores
    likeness: Scores
    scores: Scores
    before: Scores | None = None
    firsts: NDArray[np.int64] | None = None
    complete: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.int64] | Mask) -> Table:
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return replace(self, **{name: column[chosen] for name, column in columns.items() if column is not None})

    @staticmethod
    def joined(parts: Sequence[Table]) -> Table:
        """Returns the photos of several tables, by row."""
        found = [name for name in _COLUMNS if getattr(parts[0], name) is not None]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in found}
        every = replace(parts[0], **columns, complete=all(part.complete for part in parts))
        return every[np.argsort(every.rows)]

    @property
    def scored(self) -> Mask:
        """(m,): whether a photo has a score."""
        scored: Mask = np.isfinite(self.scores)
        return scored

    @property
    def results(self) -> NDArray[np.int64]:
        """(r,): the rows of the table that are results, those that do not stand behind another one."""
        every = np.arange(len(self))
        return every if self.firsts is None else np.flatnonzero(self.firsts == every)

    def copies(self, row: int) -> tuple[int, ...] | None:
        """Returns the ids of the near duplicates for which a row stands; None if nothing was to be folded."""
        return None if self.firsts is None else tuple(self.ids[self.firsts == row][1:].tolist())

    def best(self, find: Find) -> Table:
        """Keeps the best ``count`` photos. Scores of all but the best ``rerank`` of them become no number."""
        table = self
        if find.count is not None:
            chosen = [best_first(self.ids, self.by_vector, find.count)] if find.sketch is not None else []
            if find.liked is not None:
                # The liked ones are the nearest to themselves, but others may be as near.
                chosen += [best_first(self.ids, self.likeness, NEAREST), np.flatnonzero(np.isin(self.ids, find.kept))]
            if find.word is not None:
                chosen.append(best_first(self.ids, self.by_word, find.count))
            table = self[np.unique(np.concatenate([np.empty(0, np.int64), *chosen]))]
        scored = np.zeros(len(table), np.bool_)
        scored[table.to_score(find)] = True
        return replace(table, scores=np.where(scored, table.scores, np.float32(np.nan)))

    def to_score(self, find: Find) -> NDArray[np.int64]:
        """Returns the indices of the photos that the method is to score, the most promising first.

        With a word, half of them are the best by the word.
        """
        if find.rerank is None:
            return best_first(self.ids, self.by_vector)
        by_word = 0 if find.word is None else find.rerank // 2
        chosen = best_first(self.ids, self.by_vector, find.rerank - by_word)
        named = best_first(self.ids, self.by_word, by_word) if by_word else chosen[:0]
        return np.concatenate([chosen, named[~np.isin(named, chosen)]])


_COLUMNS = [column.name for column in fields(Table) if column.name != "complete"]


def check_length(vector: Floats, length: int) -> None:
    """Raises IndexRefused where the index has CLIP vectors of another length than its model gives, (e,)."""
    if vector.shape != (length,):
        raise IndexRefused(
            f"the index has CLIP vectors of length {length}, and its model gives {len(vector)}; delete the index "
            "folder and build again."
        )


@dataclass(frozen=True)
class Cells:
    """The cells of a gallery: what a query is compared with first.

    Attributes:
        sizes: (c,) int64, photos in each. vectors: (c, d) float32, their mean vectors.
        features, positions: of their mean tokens, (c, n, d) and (c, n-1).
        embeddings: (c, e) float32, their centroids by CLIP; None where it made none.
    """

    sizes: NDArray[np.int64]
    vectors: Floats
    features: NDArray[np.floating]
    positions: NDArray[np.uint8]
    embeddings: Floats | None = None

    @cached_property
    def mean(self) -> Floats:
        """(d,): the mean of all vectors of photos."""
        weights = self.sizes / max(1, self.sizes.sum())
        mean: Floats = (self.vectors.astype(np.float64).T @ weights).astype(np.float32)
        return mean

    @cached_property
    def _above(self) -> faiss.Index:
        """The second level: about the square root of the cells hold these as an index's cells hold photos."""
        kind = f"IVF{round(math.sqrt(len(self.sizes)))},Flat"
        above = faiss.index_factory(self.vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        directions = unit(self.vectors)
        above.train(directions)
        above.add(directions)
        faiss.extract_index_ivf(above).nprobe = OPENED_ABOVE
        return above

    def near(self, directions: Floats) -> NDArray[np.int64]:
        """The cells that are worth comparing with these directions (q, d), ascending: of fewer than MANY_CELLS all."""
        if len(self.sizes) < MANY_CELLS:
            return np.arange(len(self.sizes))
        found = np.unique(self._above.search(np.ascontiguousarray(directions, np.float32), NEAR_CELLS)[1])
        return found[found >= 0]

    def by_clip(self, vector: Floats) -> Scores:
        """Multiplies a vector of CLIP (e,) with the centroids by CLIP: (c,). Raises IndexRefused: lengths differ."""
        assert self.embeddings is not None
        check_length(vector, self.embeddings.shape[1])
        return (self.embeddings @ vector).astype(np.float32)

    def vectors_of(self, cells: NDArray[np.int64]) -> Floats:
        """Returns the mean vectors of these cells, ascending: not copied where they are all."""
        return self.vectors if len(cells) == len(self.sizes) else self.vectors[cells]

    def tokens(self, cells: NDArray[np.int64]) -> Tokens:
        """Returns the tokens of these cells."""
        return Tokens(self.features[cells], self.positions[cells])

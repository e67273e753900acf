"""The photos of one index as a search asks for them: found in its cells by vector, and scored by the network.

``Find`` says what is looked for, and ``Table`` has what was found, a row for each photo. Both are arrays of numpy,
since a gallery may be on other machines (``service.sharding``): what each of them finds is joined, and ``Table.best``
takes of all what one index would have found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import EmbedderEntry, Index, IndexRefused, PhotoEntry, PhotoFilter, Vectors
from model import Matcher, Tokens
from model.network import Method, Modality
from model.ranking import ALIKE, Likeness, ScoredBy
from service.towers import TextVector

Ids: TypeAlias = NDArray[np.int64]
#: Photos by their places in a gallery: one cell after the other, in each by id.
Rows: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float32]
#: A word of a query: its number in the checkpoint's vocabulary, or a text as CLIP has it.
Word: TypeAlias = int | TextVector

# Cells are searched by the cosine alone. So many times as many photos are found there as are wanted, and so many at
# least, because the prior, and what else counts, puts them in another order. In a made gallery of 100,000 photos, 4,000
# of them held all of the first 96 by distance, and 1,000 held 0.995 of them.
FOUND_FOR_ONE, FOUND_AT_LEAST = 4, 4096
# Photos that come into the ranking because they are the most similar ones to liked photos.
NEAREST = 300
# Photos whose vectors are compared at a time: some 12 MiB with the default network.
BLOCK = 1 << 14
# Photos that are copied into memory at a time: 64 of the largest network take some 40 MiB. More of the default network
# would not stay in the CPU's cache until they are scored.
BATCH = 64
# Chunks of the matcher that are scored at a time on a GPU, which would have to wait for the next batch otherwise.
GPU_CHUNKS = 4
# The share of a GPU's memory, without what other processes have of it, that the tokens of one gallery may take. Two
# must fit: the next generation is loaded beside the live one.
RESIDENT_SHARE = 0.4
# Filters whose photos are kept, a byte for each photo of the gallery: while somebody draws, one is asked for again.
FILTERS_KEPT = 16
_BUILD_AGAIN = "run `sketch-search index verify --repair`."


def best_first(ids: Ids, scores: Scores, count: int | None = None) -> NDArray[np.int64]:
    """The indices in the order of falling score, the first ``count`` of them; equal scores by id."""
    if count is None or count >= len(scores):
        return np.lexsort((ids, -scores))
    # Sorting all of a large gallery would cost more than comparing its vectors.
    least = np.partition(scores, -count)[-count] if count else np.inf
    chosen = np.flatnonzero(scores >= least)
    return chosen[np.lexsort((ids[chosen], -scores[chosen]))][:count]


@dataclass(frozen=True)
class Find:
    """A query that is encoded: what is looked for in some cells of a gallery, and how much of it.

    Attributes:
        method: what scores photos; "ret" and "clip" compare vectors alone.
        mean: (d,) the mean of all vectors of the gallery.
        features, positions: of the query's tokens, (1, n, d) and (1, n-1). The tokens are the sketch's, or where photos
            are liked one [Ret] near theirs. With no token nothing is compared with the sketch: (1, 0, d).
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
    features: Floats = field(default_factory=lambda: np.empty((1, 0, 0), np.float32))
    positions: Rows = field(default_factory=lambda: np.empty((1, 0), np.int64))
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
        features, positions = tokens.features.float().cpu().numpy(), tokens.positions.cpu().numpy()
        return replace(self, features=features, positions=positions)

    def tokens(self, device: torch.device) -> Tokens:
        """The query's tokens on a device."""
        return Tokens(torch.tensor(self.features, device=device), torch.tensor(self.positions, device=device))

    @property
    def parts(self) -> int:
        """How many parts of the query choose cells: the sketch, the word, and each liked photo."""
        return 1 + (self.word is not None) + (0 if self.liked is None else len(self.liked))

    @property
    def is_drawing(self) -> bool:
        """Whether the query is a drawing and nothing else."""
        return self.liked is None and self.unliked is None and self.word is None


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
        firsts: (m,) where in the ranking the photo is that stands for this near duplicate, or the photo itself; None
            where nothing was to be folded.
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
        """The photos of several tables, by row."""
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
        """The ids of the near duplicates for which a row of the table stands; None where nothing was to be folded."""
        return None if self.firsts is None else tuple(self.ids[self.firsts == row][1:].tolist())

    def best(self, find: Find) -> Table:
        """Of photos among which are all that were looked for, only these, and scores of those alone that are wanted."""
        table = self
        if find.count is not None:
            chosen = [best_first(self.ids, self.by_vector, find.count)] if find.features.size else []
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
        """The indices of the photos that the method is to score, the most promising first.

        With a word, half of them are the best by the word.
        """
        if find.rerank is None:
            return best_first(self.ids, self.by_vector)
        by_word = 0 if find.word is None else find.rerank // 2
        chosen = best_first(self.ids, self.by_vector, find.rerank - by_word)
        named = best_first(self.ids, self.by_word, by_word) if by_word else chosen[:0]
        return np.concatenate([chosen, named[~np.isin(named, chosen)]])


_COLUMNS = [column.name for column in fields(Table) if column.name != "complete"]


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

    def tokens(self, cells: NDArray[np.int64]) -> Tokens:
        """The tokens of these cells."""
        return Tokens(torch.tensor(self.features[cells]), torch.tensor(self.positions[cells].astype(np.int64)))


class SearchedIndex(Protocol):
    """An index as the service asks it, beside the search.

    Attributes:
        generation: its name. made: tells generations of different indexes apart, too.
        photo_count, cluster_count: how many there are.
        embedder: what the photos were clustered by. tokens_kept: of each photo, [Ret] included.
    """

    @property
    def generation(self) -> str: ...

    @property
    def photo_count(self) -> int: ...

    @property
    def cluster_count(self) -> int: ...

    @property
    def ids(self) -> Ids: ...

    @property
    def made(self) -> str: ...

    @property
    def embedder(self) -> EmbedderEntry: ...

    @property
    def tokens_kept(self) -> int: ...

    def photo(self, photo: int) -> PhotoEntry:
        """The photo that a file's id belongs to. Raises UnknownPhoto."""

    def photos(self, photos: Iterable[int]) -> tuple[PhotoEntry, ...]:
        """The photos of several ids, in their order. Raises UnknownPhoto."""

    def photo_at(self, target: str) -> PhotoEntry:
        """The photo of a file, by its path. Raises BadInvocation."""

    def open_photo(self, photo: int) -> bytes:
        """The bytes that were indexed as this photo. Raises UnknownPhoto and PhotoUnavailable."""

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Some of these bytes, from a file of that size. Raises UnknownPhoto and PhotoUnavailable."""

    def cluster_ids(self, number: int) -> Ids:
        """(m,) ascending: the ids of a cluster's photos. IndexError where there is no such cluster."""

    def photo_tokens(self, places: Rows) -> Tokens:
        """The tokens of the photos at these rows."""

    def close(self) -> None:
        """Let go of the files."""


class Gallery(Protocol):
    """A gallery as a search asks it, on this machine or on others. ``IndexGallery`` says more of each method."""

    @property
    def index(self) -> SearchedIndex: ...

    @property
    def cells(self) -> Cells: ...

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the parts of the gallery that are not searched, because they do not answer."""

    def passing(self, wanted: PhotoFilter) -> NDArray[np.int64]:
        """(c,): how many photos of each cell pass a filter."""

    def rows_of_ids(self, ids: Sequence[int]) -> Rows:
        """(m,): where the photos are that files with these ids belong to. Raises UnknownPhoto."""

    def vectors(self, rows: Rows) -> Floats:
        """(m, d): the vectors of these photos."""

    def find(self, find: Find) -> Table:
        """The photos that are looked for."""

    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """The entries of these photos, in their order."""

    def tokens(self, rows: Rows) -> Tokens:
        """The tokens of these photos."""

    def nearness(self, ret: Floats, modality: Modality, mean: Floats) -> tuple[Ids, Scores]:
        """The ids of all photos, and how near each is to a picture with this [Ret] (1, d)."""


class IndexGallery:
    """The photos of one index, searched with the checkpoint that made its tokens.

    On a GPU it keeps the photos' tokens where they fit. A CPU reads them out of the mapped files, which the system
    keeps in memory for as long as nothing else needs it.

    Attributes:
        index: the generation. cells: what a query is compared with first. missing: nothing.
    """

    missing: tuple[str, ...] = ()

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self.index = index
        self.cells = Cells(
            index.cluster_sizes,
            index.vectors.centroids,
            index.centroids.features.numpy(),
            index.centroids.positions.numpy().astype(np.uint8),
            None if index.embeddings is None else index.embeddings.centroids,
        )
        self._matcher = matcher
        self._passing: Callable[[PhotoFilter], Mask] = lru_cache(maxsize=FILTERS_KEPT)(index.passing)
        # What depends on a photo alone is computed when it is first asked for: four bytes each.
        self._priors, self._levels = (np.full(index.photo_count, np.nan, np.float32) for _ in range(2))
        self._resident = self._all_tokens() if self._fits() else None

    def passing(self, wanted: PhotoFilter) -> NDArray[np.int64]:
        """(c,): how many photos of each cell pass a filter."""
        return self.index.vectors.passing(self._passing(wanted))

    def rows_of_ids(self, ids: Sequence[int]) -> Rows:
        """(m,): where the photos are that files with these ids belong to. Raises UnknownPhoto."""
        return np.array([self.row_of(self.index.photo(photo)) for photo in ids], np.int64)

    def row_of(self, photo: PhotoEntry) -> int:
        """Where a photo is."""
        rows = self.index.vectors.rows_of(photo.cluster)
        return int(rows[np.searchsorted(self.index.ids[rows], photo.id)])

    def vectors(self, rows: Rows) -> Floats:
        """(m, d) float32: the vectors of these photos."""
        found: Floats = self.index.vectors.of(rows).numpy()
        return found

    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """The entries of these photos, in their order."""
        return tuple(self.index.photo(photo) for photo in self.index.ids[rows].tolist())

    def find(self, find: Find) -> Table:
        """The photos of the opened cells that are looked for, best by vector, by the word and by likeness; and scores.

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
        elif find.features.size:
            found.append(vectors.near(find.features[:, 0], wanted, mask, cells))
        if find.liked is not None:
            found.append(vectors.near(find.liked - find.mean, wanted, mask, cells))
            kept = np.flatnonzero(np.isin(self.index.ids, find.kept))
            found.append(kept if mask is None else kept[mask[kept]])
        if isinstance(find.word, TextVector):
            found.append(self._embeddings.near(find.word.values[None], wanted, mask, cells))
        elif find.word is not None:
            direction = self._matcher.word_direction(find.word).cpu().numpy()
            found.append(vectors.near(direction[None], wanted, mask, cells))
        return np.unique(np.concatenate(found))

    def _compared(self, rows: Rows, find: Find) -> Table:
        """The table of these photos, before any is scored by more than vectors."""
        return Table.joined([self._compared_block(block, find) for block in _blocks(rows)])

    def _compared_block(self, rows: Rows, find: Find) -> Table:
        matcher, nothing = self._matcher, np.zeros(len(rows), np.float32)
        by_vector, by_word, likeness = nothing, nothing, nothing - 1
        values = self.index.vectors.of(rows)
        ret = Tokens.of_ret(values.to(matcher.device))
        if find.clip is not None:
            by_vector = self._by_clip(find.clip, rows)
        elif find.features.size:
            priors = self._known(self._priors, rows, ret, matcher.priors)
            by_vector = matcher.scores(find.tokens(matcher.device), ret, "ret", priors)[0].numpy()
        if isinstance(find.word, TextVector):
            by_word = self._by_clip(find.word.values, rows)
        elif find.word is not None:
            levels = self._known(self._levels, rows, ret, matcher.word_levels)
            by_word = matcher.word_scores(ret, [find.word], levels)[0].numpy()
        if find.liked is not None:
            likeness = _likeness(values, find.mean, find.liked)
        ids, cells = self.index.ids[rows], self.index.vectors.cells_of(rows)
        vectors = values.numpy().astype(np.float16)
        return Table(rows, ids, cells, vectors, by_vector, by_word, likeness, np.full(len(rows), np.nan, np.float32))

    def _known(
        self, known: Scores, rows: Rows, ret: Tokens, compute: Callable[[Tokens], torch.Tensor | None]
    ) -> torch.Tensor | None:
        """(m,): what is computed of each of these photos alone, and kept in ``known``; None where there is no such."""
        missing = np.flatnonzero(np.isnan(known[rows]))
        if len(missing):
            computed = compute(ret[torch.from_numpy(missing).to(ret.features.device)])
            if computed is None:
                return None
            known[rows[missing]] = computed.cpu().numpy()
        return torch.from_numpy(known[rows]).to(self._matcher.device)

    def _leaving(self, table: Table, find: Find, unliked: Floats) -> Mask:
        """(m,): the photos that are unliked or of the kind of one that is; see ``Likeness.leaving``."""
        to_unliked = _likeness(torch.from_numpy(table.vectors), find.mean, unliked)
        gone = (to_unliked > ALIKE) & (to_unliked >= table.likeness) & ~np.isin(table.ids, find.kept)
        leaving: Mask = gone | np.isin(table.ids, find.dropped)
        return leaving

    def _scored(self, table: Table, find: Find, method: Method, begun: float) -> Table:
        """The table with the scores of the photos that the method is to score, as far as the time allows.

        With a limit they are scored in portions, of which the first is always scored.
        """
        wanted = table.to_score(find)
        sketch, scores = find.tokens(self._matcher.device), table.scores.copy()
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
        device = self._matcher.device
        batch = GPU_CHUNKS * self._matcher.chunk if device.type == "cuda" else BATCH
        for start in range(0, len(rows), batch):
            some = order[start : start + batch]
            scores[some] = self._matcher.scores(sketch, self.tokens(rows[some]), method)[0].numpy()
        return scores

    @property
    def _embeddings(self) -> Vectors:
        if self.index.embeddings is None:
            raise IndexRefused(f"the index has no CLIP vectors; {_BUILD_AGAIN}")
        return self.index.embeddings

    def _by_clip(self, vector: Floats, rows: Rows) -> Scores:
        """(m,) float32: a vector (e,) times what CLIP made of these photos. Raises IndexRefused: that is damaged."""
        embeddings = self._embeddings
        if (embeddings.width,) != vector.shape:
            raise IndexRefused(f"the index has CLIP vectors of another length than its model gives; {_BUILD_AGAIN}")
        # Not by BLAS, whose sums depend on how many photos are compared at once.
        scores: Scores = (embeddings.of(rows) * torch.tensor(vector)).sum(dim=1).numpy()
        if not np.isfinite(scores).all():
            raise IndexRefused(f"the CLIP vectors of the index are damaged; {_BUILD_AGAIN}")
        return scores

    def tokens(self, rows: Rows) -> Tokens:
        """The tokens of these photos, where they are kept: on the matcher's device or in memory."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._matcher.device)]
        return self.index.photo_tokens(rows)

    def nearness(self, ret: Floats, modality: Modality, mean: Floats) -> tuple[Ids, Scores]:
        """The ids of all photos, and how near each is to a picture with this [Ret] (1, d).

        It is minus the distance to a sketch, and the likeness to a photo. mean: (d,) that of the whole gallery.
        """
        matcher, near = self._matcher, [np.empty(0, np.float32)]
        sketch = Tokens.of_ret(torch.tensor(ret, device=matcher.device))
        for block in _blocks(np.arange(self.index.photo_count)):
            values = self.index.vectors.of(block)
            if modality == "photo":
                near.append(_likeness(values, mean, ret))
            else:
                near.append(matcher.scores(sketch, Tokens.of_ret(values.to(matcher.device)), "ret")[0].numpy())
        return self.index.ids, np.concatenate(near)

    def _fits(self) -> bool:
        """Whether the matcher's device is a GPU with room for the tokens of all photos, and a method needs them."""
        device = self._matcher.device
        if device.type != "cuda" or not self.index.photo_count or not self._matcher.calibration.relation_trained:
            return False
        one = self.index.photo_tokens(np.arange(1))
        size = one.features.nbytes + one.positions.nbytes
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch has taken, such as the live generation's tokens, counts as free: the answer must be the same for
        # the first generation and for later ones.
        return self.index.photo_count * size <= RESIDENT_SHARE * (free + torch.cuda.memory_reserved(device))

    def _all_tokens(self) -> Tokens:
        """The tokens of all photos, on the matcher's device, with the values that the index reads."""
        device, count = self._matcher.device, self.index.photo_count
        parts = [np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        like = self.index.photo_tokens(parts[0][:1])
        features, positions = (
            torch.empty(count, *one.shape[1:], dtype=one.dtype, device=device)
            for one in (like.features, like.positions)
        )
        for part in parts:
            some = self.index.photo_tokens(part)
            features[part[0] : part[-1] + 1] = some.features
            positions[part[0] : part[-1] + 1] = some.positions
        return Tokens(features, positions)


def _likeness(values: torch.Tensor, mean: Floats, examples: Floats) -> Scores:
    """(m,): how much photos with these vectors look like the most similar example (e, d)."""
    of_photos = Likeness(values, torch.tensor(mean))
    likeness: Scores = of_photos.to(torch.empty(0, dtype=torch.int64), others=torch.tensor(examples)).numpy()
    return likeness


def _blocks(rows: Rows) -> list[Rows]:
    """Rows in blocks of as many photos as are compared at a time; at least one block."""
    return np.split(rows, range(BLOCK, len(rows), BLOCK))

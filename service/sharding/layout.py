"""How the photos and cells of several shards are counted as those of one gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from indexer import EmbedderEntry
from service.search import Cells, Rows
from service.sharding.shard import Overview


class Layout:
    """The photos of all shards that are there, one shard after the other, each in its own order.

    A shard that is missing has no photos, and its cells are empty: so the others keep their numbers.

    Attributes:
        overviews: of the shards; None for those that have never been there.
        asked: the numbers of the shards that have photos here.
        photo_count: p. cells: of all shards, one shard after the other.
    """

    def __init__(self, overviews: Sequence[Overview | None], missing: frozenset[int]) -> None:
        """missing: numbers of the shards that do not answer now."""
        self.overviews = tuple(overviews)
        self._missing = missing
        photos = [0 if one is None or number in missing else one.photos for number, one in enumerate(overviews)]
        cells = [0 if one is None else len(one.cells.sizes) for one in overviews]
        self._ends, self._cell_ends = np.cumsum(photos), np.cumsum(cells)
        self._starts, self._cell_starts = self._ends - photos, self._cell_ends - cells
        self.asked = tuple(number for number, count in enumerate(photos) if count)
        self.photo_count = int(sum(photos))
        self.cells = self._joined()

    def _joined(self) -> Cells:
        known = [(number, one.cells) for number, one in enumerate(self.overviews) if one is not None]
        every = [cells for _, cells in known]
        sizes = [np.zeros_like(cells.sizes) if number in self._missing else cells.sizes for number, cells in known]
        embeddings = [cells.embeddings for cells in every if cells.embeddings is not None]
        return Cells(
            np.concatenate(sizes),
            np.concatenate([cells.vectors for cells in every]),
            np.concatenate([cells.features for cells in every]),
            np.concatenate([cells.positions for cells in every]),
            np.concatenate(embeddings) if len(embeddings) == len(every) else None,
        )

    @property
    def embedder(self) -> EmbedderEntry:
        """The embedder that the photos of all shards were clustered by."""
        return self._known().embedder

    @property
    def tokens_kept(self) -> int:
        """How many tokens of each photo are kept."""
        return self._known().origin.tokens

    def _known(self) -> Overview:
        return next(one for one in self.overviews if one is not None)

    def cell_start(self, shard: int) -> int:
        """The number of a shard's first cell among those of all."""
        return int(self._cell_starts[shard])

    def row_start(self, shard: int) -> int:
        """The row of a shard's first photo among those of all."""
        return int(self._starts[shard])

    def cells_by_shard(self, cells: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """For each shard that is there and has some of these cells: its number, and their numbers there."""
        shards = np.searchsorted(self._cell_ends, cells, side="right")
        for shard in np.unique(shards).tolist():
            if shard in self.asked:
                yield shard, cells[shards == shard] - self._cell_starts[shard]

    def shard_of_cell(self, cell: int) -> int:
        """The shard that a cell is in."""
        return int(np.searchsorted(self._cell_ends, cell, side="right"))

    def by_shard(self, rows: Rows) -> Iterator[tuple[int, NDArray[np.int64], Rows]]:
        """For each shard that has some of these photos: its number, which of them these are, and their rows there."""
        shards = np.searchsorted(self._ends, rows, side="right")
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            yield shard, places, rows[places] - self._starts[shard]

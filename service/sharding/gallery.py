"""A gallery whose photos are in several shards, for one search.

A search by a sketch takes two rounds: the shards that have the best cells find and score their photos; and the shards
that have what is shown tell its paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import BadInvocation, EmbedderEntry, PhotoEntry, PhotoFilter, UnknownPhoto
from model import Tokens
from model.network import Modality
from service.errors import BadSearch
from service.search import Cells, Find, Floats, Ids, Rows, Scores, Table
from service.sharding.layout import Layout
from service.sharding.links import Round
from service.sharding.shard import Asked, Call


class ShardedGallery:
    """The photos of the shards that are there, as ``Gallery`` and ``SearchedIndex``. For one search, in one thread."""

    def __init__(self, layout: Layout, ask: Round, missing: tuple[str, ...] = ()) -> None:
        """layout: the photos. ask: the way to the shards that have them. missing: the names of other shards."""
        self._layout, self._ask, self.missing = layout, ask, missing

    # What a search asks of the photos.

    @property
    def index(self) -> ShardedGallery:
        """The index that the service asks, beside the search: this gallery itself."""
        return self

    @property
    def cells(self) -> Cells:
        """The cells of all shards."""
        return self._layout.cells

    def passing(self, wanted: PhotoFilter) -> NDArray[np.int64]:
        """(c,): how many photos of each cell pass a filter."""
        counts = np.zeros_like(self.cells.sizes)
        for shard, of_shard in self._ask_all("passing", wanted).items():
            start = self._layout.cell_start(shard)
            counts[start : start + len(of_shard)] = of_shard
        return counts

    def find(self, find: Find) -> Table:
        """The photos that are looked for, of the shards that have the opened cells."""
        split = self._layout.cells_by_shard(find.cells)
        calls: dict[int, Call[Table]] = {shard: Call("find", replace(find, cells=cells)) for shard, cells in split}
        parts = [_nothing(find)]
        for shard, found in self._ask.ask(calls).items():
            rows, cells = found.rows + self._layout.row_start(shard), found.cells + self._layout.cell_start(shard)
            parts.append(replace(found, rows=rows, cells=cells))
        return Table.joined(parts).best(find)

    def rows_of_ids(self, ids: Sequence[int]) -> Rows:
        """(m,): where photos are. One that no shard has may be in one that is missing: then ShardsLost is raised."""
        wanted = tuple(ids)
        found = np.full(len(wanted), -1, np.int64)
        for shard, rows in self._ask_all("known_rows", wanted).items() if wanted else ():
            found[rows >= 0] = rows[rows >= 0] + self._layout.row_start(shard)
        if (found < 0).any():
            self._ask.check_complete()
            raise UnknownPhoto(f"no photo has the id {wanted[int(np.argmin(found))]}.")
        return found

    def vectors(self, rows: Rows) -> Floats:
        """(m, d): the vectors of these photos."""
        found = np.empty((len(rows), self.cells.vectors.shape[1]), np.float32)
        for places, _, vectors in self._ask_of("vectors", rows):
            found[places] = vectors
        return found

    def entries(self, rows: Rows) -> tuple[PhotoEntry, ...]:
        """The entries of these photos, in their order."""
        found: dict[int, PhotoEntry] = {}
        for places, shard, entries in self._ask_of("entries", rows):
            first = self._layout.cell_start(shard)
            for place, entry in zip(places.tolist(), entries, strict=True):
                found[place] = replace(entry, cluster=entry.cluster + first)
        return tuple(found[place] for place in range(len(rows)))

    def tokens(self, rows: Rows) -> Tokens:
        """The tokens of these photos. Only near duplicates are compared by them, at most 1,000 photos of a search."""
        parts = list(self._ask_of("sent_tokens", rows))
        together = Tokens.cat([tokens.tokens(torch.device("cpu")) for _, _, tokens in parts])
        order = np.concatenate([places for places, _, _ in parts])
        return together[torch.from_numpy(np.argsort(order))]

    def nearness(self, ret: Floats, modality: Modality, mean: Floats) -> tuple[Ids, Scores]:
        """The ids of all photos, and how near each is to a picture with this [Ret]."""
        answers = self._ask_all("nearness", ret, modality, mean)
        ids, near = zip(*(answers[shard] for shard in self._layout.asked), strict=True)
        return np.concatenate(ids), np.concatenate(near)

    # What else the service asks of an index.

    @property
    def generation(self) -> str:
        """The names of the shards' generations, joined by '+'; one name where all are the same."""
        names = ["-" if one is None else one.generation for one in self._layout.overviews]
        return names[0] if len(set(names)) == 1 else "+".join(names)

    @property
    def made(self) -> str:
        """The names that tell the generations of all shards apart from others, joined by '+'."""
        return "+".join("-" if one is None else one.made for one in self._layout.overviews)

    @property
    def photo_count(self) -> int:
        """Of all shards that are there."""
        return self._layout.photo_count

    @property
    def cluster_count(self) -> int:
        """Of all shards."""
        return len(self.cells.sizes)

    @property
    def ids(self) -> Ids:
        """(p,): of all photos, by row."""
        answers = self._ask_all("all_ids")
        return np.concatenate([np.empty(0, np.int64), *(answers[shard] for shard in self._layout.asked)])

    @property
    def embedder(self) -> EmbedderEntry:
        """The embedder that the photos were clustered by."""
        return self._layout.embedder

    @property
    def tokens_kept(self) -> int:
        """How many tokens of each photo are kept, [Ret] included."""
        return self._layout.tokens_kept

    def photo(self, photo: int) -> PhotoEntry:
        """The photo of an id. Raises UnknownPhoto; ShardsLost where a shard that is missing may have it."""
        return self.photos([photo])[0]

    def photos(self, photos: Iterable[int]) -> tuple[PhotoEntry, ...]:
        """The photos of several ids, in their order, in two rounds."""
        return self.entries(self.rows_of_ids(list(photos)))

    def photo_at(self, target: str) -> PhotoEntry:
        """Nobody asks for it: paths are named on the command line, which opens one index."""
        raise BadInvocation(f"photos of several shards are named by their ids, not by paths such as {target}.")

    def open_photo(self, photo: int) -> bytes:
        """The bytes that were indexed as a photo, read on a machine of its shard."""
        return self._ask_home("open_photo", photo)

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Some of the same bytes, so that no more of them has to be held here."""
        return self._ask_home("part_of_photo", photo, size, start, count)

    def _ask_home(self, name: Asked, photo: int, *arguments: int) -> bytes:
        ((shard, _, _),) = self._layout.by_shard(self.rows_of_ids([photo]))
        calls: dict[int, Call[bytes]] = {shard: Call(name, photo, *arguments)}
        return self._ask.ask(calls)[shard]

    def cluster_ids(self, number: int) -> Ids:
        """(m,) ascending: the ids of a cluster's photos. Raises IndexError; ShardsLost where its shard is missing."""
        if not 0 <= number < self.cluster_count:
            raise IndexError(f"there are {self.cluster_count} clusters, and no number {number}")
        shard = self._layout.shard_of_cell(number)
        if shard not in self._layout.asked:
            self._ask.check_complete()
            return np.empty(0, np.int64)
        calls: dict[int, Call[Ids]] = {shard: Call("cluster_ids", number - self._layout.cell_start(shard))}
        return self._ask.ask(calls)[shard]

    def photo_tokens(self, places: Rows) -> Tokens:
        """Raises BadSearch: to read the tokens of all photos, all of them would have to go between machines."""
        raise BadSearch("A sketch is rebuilt from the photos of one index only, and here there are several shards.")

    def close(self) -> None:
        """Nothing is open here."""

    def _ask_all(self, name: Asked, *arguments: Any) -> dict[int, Any]:
        return self._ask.ask({shard: Call(name, *arguments) for shard in self._layout.asked})

    def _ask_of(self, name: Asked, rows: Rows) -> Iterable[tuple[NDArray[np.int64], int, Any]]:
        """Ask the shards of these photos: which of the photos it is, the shard, and its answer."""
        split = list(self._layout.by_shard(rows))
        calls: dict[int, Call[Any]] = {shard: Call(name, there) for shard, _, there in split}
        answers = self._ask.ask(calls)
        return [(places, shard, answers[shard]) for shard, places, _ in split]


def _nothing(find: Find) -> Table:
    """A table without photos."""
    none, numbers = np.empty(0, np.float32), np.empty(0, np.int64)
    vectors = np.empty((0, len(find.mean)), np.float16)
    return Table(numbers, numbers, numbers, vectors, none, none, none, none)

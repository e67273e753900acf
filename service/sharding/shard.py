"""One generation of a shard, opened on a machine that has its files, and what is asked of it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import EmbedderEntry, Index, Origin, UnknownPhoto
from model import Matcher, Tokens
from service.search import Cells, Ids, IndexGallery, Rows, Searcher, check_searches

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class SentTokens:
    """Tokens of a batch of pictures: ``model.Tokens`` as arrays."""

    features: NDArray[Any]
    positions: NDArray[np.int64]

    @staticmethod
    def of(tokens: Tokens) -> SentTokens:
        """These tokens, from whatever device they are on."""
        return SentTokens(tokens.features.cpu().numpy(), tokens.positions.cpu().numpy())

    def tokens(self, device: torch.device) -> Tokens:
        """The tokens on a device."""
        return Tokens(to_tensor(self.features, device), to_tensor(self.positions, device))


def to_tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy as a tensor: what came from elsewhere may lie in memory that is not to be written."""
    return torch.from_numpy(np.array(array)).to(device)


@dataclass(frozen=True)
class Overview:
    """A summary of a shard, which the searching process must know before it can ask it.

    Attributes:
        made: names the generation, also among those of other indexes. generation: its name in the shard's folder.
        photos: how many it has. cells: the shard's.
        origin: the network that made the rows. embedder: what the photos were clustered by.
    """

    made: str
    generation: str
    photos: int
    cells: Cells
    origin: Origin
    embedder: EmbedderEntry


class Shard(IndexGallery):
    """A generation of a shard, opened: its photos by their rows in this shard."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        """Raises IndexRefused where the index does not answer as one should."""
        check_searches(Searcher(index, matcher), index)
        super().__init__(index, matcher)
        # A question may still use it when another generation is live. So the files are closed when none does.
        weakref.finalize(self, index.close)

    def overview(self) -> Overview:
        """Its summary."""
        index = self.index
        origin, embedder = index.manifest.origin, index.embedder
        return Overview(index.made, index.generation, index.photo_count, self.cells, origin, embedder)

    def all_ids(self) -> Ids:
        """(p,): the ids of all photos, by row."""
        return self.index.ids

    def known_rows(self, ids: Sequence[int]) -> Rows:
        """(m,): where the photos are that files with these ids belong to; -1 for those that are in other shards."""
        return np.array([self._known_row(photo) for photo in ids], np.int64)

    def _known_row(self, photo: int) -> int:
        try:
            return self.row_of(self.index.photo(photo))
        except UnknownPhoto:
            return -1

    def sent_tokens(self, rows: Rows) -> SentTokens:
        """The tokens of these photos: for near duplicates only, which may be in any two shards."""
        return SentTokens.of(self.tokens(rows))

    def cluster_ids(self, number: int) -> Ids:
        """(m,) ascending: the ids of a cluster's photos."""
        return self.index.cluster_ids(number)

    def open_photo(self, photo: int) -> bytes:
        """The bytes that were indexed as a photo. Raises UnknownPhoto and PhotoUnavailable."""
        return self.index.open_photo(photo)

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Some of these bytes, from a file of that size. Raises UnknownPhoto and PhotoUnavailable."""
        return self.index.part_of_photo(photo, size, start, count)


#: The methods of a shard that may be called from elsewhere. Rows and cells are counted in the shard.
Asked = Literal[
    "find",
    "passing",
    "known_rows",
    "vectors",
    "entries",
    "sent_tokens",
    "nearness",
    "all_ids",
    "cluster_ids",
    "open_photo",
    "part_of_photo",
]


class Call(Generic[T_co]):
    """A call of one of a shard's methods: it goes to where the shard is, and is answered there.

    Attributes:
        name: of the method. arguments: arrays of numpy, and what holds them.
    """

    def __init__(self, name: Asked, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments

    def answer(self, shard: Shard) -> T_co:
        """The answer, computed where the shard's files are."""
        found: T_co = getattr(shard, self.name)(*self.arguments)
        return found

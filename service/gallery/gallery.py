"""The photos of a gallery, which is one index or several shards on several machines, as one table of cells and rows.

A search by a sketch takes two rounds: the shards that have the best cells find and score their photos; and the shards
that have what is shown tell its paths. Each answers about the generation that the search began with. A gallery that is
one index on this machine is the case of one shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer import BadInvocation, EmbedderEntry, PhotoEntry, PhotoFilter, UnknownPhoto
from model.engine import Modality, Tokens
from model.errors import Refusal
from service.errors import ShardsLost
from service.gallery.shard import Call, Overview, Shard
from service.gallery.table import Cells, Find, Floats, Ids, Rows, Scores, Table

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ShardUnavailable(Refusal):
    """A shard did not answer, or not in time."""


class ShardRefuses(ShardUnavailable):
    """A shard answers that it cannot be searched, and why."""


class GenerationGone(ShardUnavailable):
    """A shard no longer has the generation that a search began with."""


class Pending(Protocol[T_co]):
    """An answer that is on its way."""

    def result(self, seconds: float) -> T_co:
        """Waits for the answer. Raises ShardUnavailable if it does not come in time, and what the question raises."""


@dataclass(frozen=True)
class Computed(Generic[T]):
    """An answer that is computed in this process, when it is wanted."""

    compute: Callable[[], T]

    def result(self, seconds: float) -> T:
        """Returns the answer, however long it takes."""
        return self.compute()


@dataclass(frozen=True)
class State:
    """The state of a shard.

    Attributes:
        made: names the generation that is in use.
        refusal: why a newer generation on the disk could not be opened; None if there is none.
    """

    made: str
    refusal: str | None = None


class ShardLink(Protocol):
    """The way to one shard. Its methods may be called from any thread, and return at once.

    Attributes:
        name: of the shard, as users are told it.
    """

    name: str

    def state(self) -> Pending[State]:
        """Returns what the shard has now. Raises ShardRefuses if there is no generation."""

    def overview(self, made: str) -> Pending[Overview]:
        """Returns the summary of a generation."""

    def ask(self, made: str, question: Call[T]) -> Pending[T]:
        """Asks a generation."""


class Round:
    """The shards of one search, each asked about the generation that the search began with."""

    def __init__(self, links: Sequence[ShardLink], made: Sequence[str | None], seconds: float) -> None:
        """
        Args:
            links: to all shards. made: the generation of each; None for one that is not to be asked.
            seconds: how long a shard may take to answer one question.
        """
        self._links, self._made, self._seconds = links, made, seconds

    def check_complete(self) -> None:
        """Raise ShardsLost where a shard is not to be asked: what is looked for may be there."""
        if lost := [link.name for link, made in zip(self._links, self._made, strict=True) if made is None]:
            raise ShardsLost(lost)

    def ask(self, questions: Mapping[int, Call[T]]) -> dict[int, T]:
        """Returns the answers to questions, by the shard's number. Raises ShardsLost if a shard does not answer."""
        answers, lost = self.gather(questions)
        if lost:
            raise ShardsLost(lost)
        return answers

    def gather(self, questions: Mapping[int, Call[T]]) -> tuple[dict[int, T], list[str]]:
        """Returns the answers of the shards that answer, by their numbers, and the names of the others.

        All questions are asked at the same time.
        """
        until = time.monotonic() + self._seconds
        pending: dict[int, Pending[T]] = {}
        answers: dict[int, T] = {}
        lost: list[str] = []
        for shard, question in questions.items():
            made = self._made[shard]
            if made is None:
                lost.append(self._links[shard].name)
            else:
                pending[shard] = self._links[shard].ask(made, question)
        for shard, one in pending.items():
            try:
                answers[shard] = one.result(max(0.0, until - time.monotonic()))
            except ShardUnavailable:
                lost.append(self._links[shard].name)
        return answers, lost


class Alone(Round):
    """The one shard of a gallery, in this process: it always answers."""

    def __init__(self, shard: Shard) -> None:
        super().__init__((), (), 0.0)
        self._shard = shard

    def gather(self, questions: Mapping[int, Call[T]]) -> tuple[dict[int, T], list[str]]:
        """Returns the answers, however long they take."""
        return {number: question.answer(self._shard) for number, question in questions.items()}, []


class Layout:
    """The photos of all shards that are there, one shard after the other, each in its own order.

    A shard that is missing has no photos, and its cells are empty: so the others keep their numbers.

    Attributes:
        overviews: of the shards; None for those that have never been there.
        asked: the numbers of the shards that have photos here.
        row_starts, cell_starts: the numbers of each shard's first photo and first cell among those of all.
        photo_count: p. cells: of all shards, one shard after the other.
    """

    def __init__(self, overviews: Sequence[Overview | None], missing: frozenset[int]) -> None:
        """missing: numbers of the shards that do not answer now."""
        self.overviews = tuple(overviews)
        self._missing = missing
        photos = [0 if one is None or number in missing else one.photos for number, one in enumerate(overviews)]
        cells = [0 if one is None else len(one.cells.sizes) for one in overviews]
        self._ends, self._cell_ends = np.cumsum(photos), np.cumsum(cells)
        self.row_starts, self.cell_starts = (self._ends - photos).tolist(), (self._cell_ends - cells).tolist()
        self.asked = tuple(number for number, count in enumerate(photos) if count)
        self.photo_count = int(sum(photos))
        self.cells = self._joined()

    def _joined(self) -> Cells:
        known = [(number, one.cells) for number, one in enumerate(self.overviews) if one is not None]
        every = [cells for _, cells in known]
        if len(every) == 1 and not self._missing:
            return every[0]
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
    def known(self) -> Overview:
        """A shard that has been there: what is the same of all can be read of it."""
        return next(one for one in self.overviews if one is not None)

    def cells_by_shard(self, cells: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """For each shard that is there and has some of these cells: its number, and their numbers there."""
        shards = np.searchsorted(self._cell_ends, cells, side="right")
        for shard in np.unique(shards).tolist():
            if shard in self.asked:
                yield shard, cells[shards == shard] - self.cell_starts[shard]

    def shard_of_cell(self, cell: int) -> int:
        """The shard that a cell is in."""
        return int(np.searchsorted(self._cell_ends, cell, side="right"))

    def by_shard(self, rows: Rows) -> Iterator[tuple[int, NDArray[np.int64], Rows]]:
        """For each shard that has some of these photos: its number, which of them these are, and their rows there."""
        shards = np.searchsorted(self._ends, rows, side="right")
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            yield shard, places, rows[places] - self.row_starts[shard]


class Gallery:
    """The photos of the shards that are there, for one search or lookup.

    Attributes:
        cells: of all shards. photo_count: of those that are there. cluster_count: of all.
        missing: the names of the shards that are not searched, because they do not answer.
        embedder: what the photos were clustered by. tokens_kept: of each photo, [Ret] included.
    """

    def __init__(self, layout: Layout, ask: Round, missing: tuple[str, ...] = ()) -> None:
        """layout: the photos. ask: the way to the shards that have them."""
        self._layout, self._ask, self.missing = layout, ask, missing
        self.cells: Cells = layout.cells
        self.photo_count, self.cluster_count = layout.photo_count, len(layout.cells.sizes)
        self.embedder: EmbedderEntry = layout.known.embedder
        self.tokens_kept = layout.known.origin.tokens

    @staticmethod
    def of(shard: Shard) -> Gallery:
        """The gallery that is one shard in this process."""
        return Gallery(Layout([shard.overview()], frozenset()), Alone(shard))

    def passing(self, wanted: PhotoFilter) -> NDArray[np.int64]:
        """(c,): how many photos of each cell pass a filter."""
        counts = np.zeros_like(self.cells.sizes)
        for shard, of_shard in self._ask_all("passing", wanted).items():
            start = self._layout.cell_starts[shard]
            counts[start : start + len(of_shard)] = of_shard
        return counts

    def find(self, find: Find) -> Table:
        """The photos that are looked for, of the shards that have the opened cells."""
        split = self._layout.cells_by_shard(find.cells)
        calls: dict[int, Call[Table]] = {shard: Call("find", replace(find, cells=cells)) for shard, cells in split}
        parts = []
        for shard, found in self._ask.ask(calls).items():
            rows, cells = found.rows + self._layout.row_starts[shard], found.cells + self._layout.cell_starts[shard]
            parts.append(replace(found, rows=rows, cells=cells))
        # A single shard has chosen the best already.
        return parts[0] if len(parts) == 1 else Table.joined([*parts, _nothing(find)]).best(find)

    def rows_of_ids(self, ids: Sequence[int]) -> Rows:
        """(m,): where photos are. One that no shard has may be in one that does not answer: that raises ShardsLost."""
        wanted = tuple(ids)
        found = np.full(len(wanted), -1, np.int64)
        calls: dict[int, Call[Rows]] = {shard: Call("rows_of_ids", wanted) for shard in self._layout.asked if wanted}
        answers, lost = self._ask.gather(calls)
        for shard, rows in answers.items():
            found[rows >= 0] = rows[rows >= 0] + self._layout.row_starts[shard]
        if (found < 0).any():
            if lost:
                raise ShardsLost(lost)
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
        """Returns the entries of these photos, in their order."""
        found: dict[int, PhotoEntry] = {}
        for places, shard, entries in self._ask_of("entries", rows):
            first = self._layout.cell_starts[shard]
            for place, entry in zip(places.tolist(), entries, strict=True):
                found[place] = replace(entry, cluster=entry.cluster + first)
        return tuple(found[place] for place in range(len(rows)))

    def tokens(self, rows: Rows) -> Tokens:
        """Returns the tokens of these photos. A search compares at most 1,000 near duplicates by them."""
        parts = list(self._ask_of("tokens", rows))
        together = Tokens.cat([tokens for _, _, tokens in parts])
        order = np.concatenate([places for places, _, _ in parts])
        return together[np.argsort(order)]

    def nearness(self, given: Tokens, modality: Modality, mean: Floats) -> tuple[Ids, Scores]:
        """Returns the ids of all photos, and how near each is to a picture, a batch of one."""
        answers = self._ask_all("nearness", given, modality, mean)
        ids, near = zip(*(answers[shard] for shard in self._layout.asked), strict=True)
        return np.concatenate(ids), np.concatenate(near)

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
    def ids(self) -> Ids:
        """(p,): of all photos, by row."""
        answers = self._ask_all("all_ids")
        return np.concatenate([np.empty(0, np.int64), *(answers[shard] for shard in self._layout.asked)])

    def photo(self, photo: int) -> PhotoEntry:
        """Returns the photo of an id. Raises UnknownPhoto; ShardsLost where a shard that is missing may have it."""
        return self.photos([photo])[0]

    def photos(self, photos: Iterable[int]) -> tuple[PhotoEntry, ...]:
        """Returns the photos of several ids, in their order, in two rounds."""
        return self.entries(self.rows_of_ids(list(photos)))

    def photo_at(self, target: str) -> PhotoEntry:
        """Finds the photo of a file of one index by its path, as results show it or on disk. Raises BadInvocation."""
        found: PhotoEntry = self._ask_alone("photo_at", target)
        return found

    def address_of(self, shown: str) -> str:
        """Returns the path or the URL of a file of one index, which is named by its path as results show it."""
        found: str = self._ask_alone("address_of", shown)
        return found

    def _ask_alone(self, name: str, path: str) -> Any:
        if len(self._layout.overviews) > 1:
            raise BadInvocation(f"photos of several shards are named by their ids, not by paths such as {path}.")
        return self._ask.ask({0: Call[Any](name, path)})[0]

    def open_photo(self, photo: int) -> bytes:
        """Returns the bytes that were indexed as a photo, read on a machine of its shard."""
        return self._ask_home("open_photo", photo)

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Returns some of the same bytes, so that no more of them has to be held here."""
        return self._ask_home("part_of_photo", photo, size, start, count)

    def _ask_home(self, name: str, photo: int, *arguments: int) -> bytes:
        ((shard, _, _),) = self._layout.by_shard(self.rows_of_ids([photo]))
        calls: dict[int, Call[bytes]] = {shard: Call(name, photo, *arguments)}
        return self._ask.ask(calls)[shard]

    def cluster_ids(self, number: int) -> Ids:
        """(m,) ascending: the ids of a cluster's photos. Raises ShardsLost where its shard is missing."""
        shard = self._layout.shard_of_cell(number)
        if shard not in self._layout.asked:
            self._ask.check_complete()
            return np.empty(0, np.int64)
        calls: dict[int, Call[Ids]] = {shard: Call("cluster_ids", number - self._layout.cell_starts[shard])}
        return self._ask.ask(calls)[shard]

    def _ask_all(self, name: str, *arguments: Any) -> dict[int, Any]:
        return self._ask.ask({shard: Call(name, *arguments) for shard in self._layout.asked})

    def _ask_of(self, name: str, rows: Rows) -> Iterable[tuple[NDArray[np.int64], int, Any]]:
        """Ask the shards of these photos: which of the photos it is, the shard, and its answer."""
        split = list(self._layout.by_shard(rows))
        calls: dict[int, Call[Any]] = {shard: Call(name, there) for shard, _, there in split}
        answers = self._ask.ask(calls)
        return [(places, shard, answers[shard]) for shard, places, _ in split]


def _nothing(find: Find) -> Table:
    """Returns a table without photos."""
    none, numbers = np.empty(0, np.float32), np.empty(0, np.int64)
    vectors = np.empty((0, len(find.mean)), np.float16)
    return Table(numbers, numbers, numbers, vectors, none, none, none, none)

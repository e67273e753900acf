"""The shards that a server searches, as far as they are known now, and which of them answer."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from model.terminal import Refusal
from service.errors import NotReady
from service.gallery import (
    Call,
    Gallery,
    Ids,
    Layout,
    Overview,
    Pending,
    Round,
    ShardLink,
    ShardRefuses,
    ShardUnavailable,
    State,
)
from service.schemas import ShardInfo


class ShardsRefused(Refusal):
    """These shards cannot be searched together, or cannot be served at all; the message says what to do."""


class SharedId(ShardsRefused):
    """Two shards have a photo with one id.

    Attributes:
        shard: the number of the later one.
    """

    def __init__(self, shard: int, told: str) -> None:
        super().__init__(told)
        self.shard = shard


@dataclass(frozen=True)
class _Known:
    """The knowledge of a shard.

    Attributes:
        overview: of the generation that is searched; None where none was ever seen.
        answers: whether it answered when it was asked last.
        reason: why it does not answer, or why its newest generation is not used.
    """

    overview: Overview | None = None
    answers: bool = False
    reason: str | None = "it has not answered yet"


class Generations:
    """The generations of all shards that are searched together. They do not change.

    Attributes:
        overviews: of the shards; None for those that were never there.
    """

    def __init__(self, overviews: Sequence[Overview | None]) -> None:
        self.overviews = tuple(overviews)
        # All answer, or the same few do not. Nothing here refers to itself, so that what is open is closed at once.
        self.layout = lru_cache(maxsize=2)(partial(Layout, self.overviews))

    def close(self) -> None:
        """Lets go of the files of shards in this process."""
        for one in self.overviews:
            if one is not None and one.shard is not None:
                one.shard.index.close()


class Shards:
    """The shards of a gallery; a gallery that is one index is one shard without a name. Threads may share it.

    Attributes:
        links: to all of them. generations: those that are searched.
    """

    def __init__(self, links: Sequence[ShardLink], seconds: float = 0.0) -> None:
        """seconds: how long a shard elsewhere may take to answer one question."""
        self.links, self._seconds = tuple(links), seconds
        self._known = [_Known() for _ in links]
        self._lock = threading.Lock()
        self.generations = Generations([None for _ in links])

    @property
    def missing(self) -> frozenset[int]:
        """The numbers of those that do not answer."""
        with self._lock:
            return frozenset(n for n, known in enumerate(self._known) if not known.answers or known.overview is None)

    @property
    def refused(self) -> str | None:
        """Why shards do not use their newest generation, while an older one answers; None where all do."""
        with self._lock:
            known = [known if known.answers else _Known(reason=None) for known in self._known]
        return self._reasons(known) or None

    def _reasons(self, known: Iterable[_Known]) -> str:
        """Why something is not as it should be, shard by shard."""
        told = [(link.name, one.reason) for link, one in zip(self.links, known, strict=True) if one.reason is not None]
        return "; ".join(f"{name}: {reason}" if name else reason for name, reason in told)

    def check_any(self) -> None:
        """Raises NotReady, saying why, where no shard answers."""
        if len(self.missing) == len(self.links):
            reasons = self._reasons(self._known)
            raise NotReady(f"No shard of the gallery answers ({reasons})." if self.links[0].name else reasons)

    def infos(self) -> tuple[ShardInfo, ...]:
        """As they are told to users; none where the gallery is one index."""
        if not self.links[0].name:
            return ()
        with self._lock:
            return tuple(_info(link.name, known) for link, known in zip(self.links, self._known, strict=True))

    def lose(self, names: Collection[str]) -> None:
        """Takes note that shards with these names did not answer."""
        with self._lock:
            for number, link in enumerate(self.links):
                if link.name in names:
                    lost = replace(self._known[number], answers=False, reason="it did not answer a search")
                    self._known[number] = lost

    def gallery(self, generations: Generations, without: Collection[str] = ()) -> Gallery:
        """The photos of these generations, as far as their shards answer. Raises NotReady where none does.

        without: names of shards that have not answered this search.
        """
        never = {number for number, one in enumerate(generations.overviews) if one is None}
        named = {number for number, link in enumerate(self.links) if link.name in without}
        missing = self.missing | never | named
        if len(missing) == len(self.links):
            raise NotReady("No shard of the gallery answers now. Try again in a moment.")
        asked = [
            None if one is None or number in missing else one.made for number, one in enumerate(generations.overviews)
        ]
        names = tuple(self.links[number].name for number in sorted(missing))
        return Gallery(generations.layout(missing), Round(self.links, asked, self._seconds), names)

    def refresh(self, *, strict: bool = False) -> bool:
        """Ask all of them what they have. Returns whether there are other generations to be searched than before.

        A generation that does not fit to the other shards is not taken (``check_fits``).

        strict: whether to raise ShardsRefused then, and where a shard says that it cannot be searched.
        """
        pending = [link.state() for link in self.links]
        states = [self._heard(one) for one in pending]
        overviews = list(self.generations.overviews)
        fresh: dict[int, Overview] = {}
        now: list[_Known] = []
        for number, (state, overview) in enumerate(zip(states, overviews, strict=True)):
            if strict and isinstance(state, ShardRefuses):
                raise ShardsRefused(f"the shard {self.links[number].name} cannot be searched: {state}")
            if isinstance(state, State) and (overview is None or overview.made != state.made):
                try:
                    fresh[number] = self.links[number].overview(state.made).result(self._seconds)
                except ShardUnavailable as error:
                    state = error
            told = state.refusal if isinstance(state, State) else str(state)
            now.append(_Known(overview, isinstance(state, State), told))
        for number, refusal in self._unfit(fresh, strict=strict).items():
            # The one before may be open there still.
            del fresh[number]
            now[number] = replace(now[number], answers=now[number].overview is not None, reason=refusal)
        for number, overview in fresh.items():
            overviews[number], now[number] = overview, replace(now[number], overview=overview)
        with self._lock:
            self._known = now
        if fresh:
            self.generations = Generations(overviews)
        return bool(fresh)

    def _unfit(self, fresh: Mapping[int, Overview], *, strict: bool) -> dict[int, str]:
        """Why some new generations are not taken, by the number of their shard.

        A build may move photos from shard to shard. So those that come together are looked at together.
        """
        refused: dict[int, str] = {}
        names = [link.name for link in self.links]
        if len(names) == 1:
            return refused
        while True:
            together = list(self.generations.overviews)
            taken = {number: one for number, one in fresh.items() if number not in refused}
            for number, one in taken.items():
                together[number] = one
            try:
                # Of two that do not go together, the first stays.
                for number in reversed(taken):
                    looked_at = number
                    check_fits(together, number, names)
                check_ids(self._ids(together, taken), names)
            except SharedId as error:
                if strict:
                    raise
                refused[error.shard] = str(error)
            except ShardsRefused as error:
                if strict:
                    raise
                refused[looked_at] = str(error)
            else:
                return refused

    def _ids(self, overviews: Sequence[Overview | None], fresh: Collection[int]) -> dict[int, Ids]:
        """The ids of the photos of these generations, as far as their shards answer; those of fresh ones last.

        They are not kept: nothing in this process grows with the photos but the cells.
        """
        order = sorted(range(len(overviews)), key=lambda number: (number in fresh, number))
        pending: dict[int, Pending[Ids]] = {}
        for number in order:
            one = overviews[number]
            if one is not None:
                pending[number] = self.links[number].ask(one.made, Call("all_ids"))
        found: dict[int, Ids] = {}
        for number, ids in pending.items():
            with suppress(ShardUnavailable):
                found[number] = ids.result(self._seconds)
        return found

    def _heard(self, pending: Pending[State]) -> State | ShardUnavailable:
        try:
            return pending.result(self._seconds)
        except ShardUnavailable as error:
            return error


def _info(name: str, known: _Known) -> ShardInfo:
    overview = known.overview
    return ShardInfo(
        name=name,
        answers=known.answers,
        reason=known.reason,
        generation=None if overview is None else overview.generation,
        photos=0 if overview is None else overview.photos,
        clusters=0 if overview is None else len(overview.cells.sizes),
    )


_TOGETHER = "build the shards together, by `sketch-search index build FOLDER --ray ADDRESS`"


def check_folders(folders: Sequence[Path]) -> None:
    """Raise ShardsRefused where there is none, or a folder is named twice."""
    if not folders:
        raise ShardsRefused("no shards are named; name their folders with --shards DIR...")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (first := seen.setdefault(folder.resolve(), folder)) is not folder:
            both = f"{folder}" if first == folder else f"{first} and {folder}"
            raise ShardsRefused(f"one shard is named twice: {both}; name each folder once.")


def shard_names(folders: Sequence[Path]) -> list[str]:
    """The names of shards, as users are told them: those of their folders, numbered where two are the same."""
    names = [folder.name or "shard" for folder in folders]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]


def check_fits(overviews: Sequence[Overview | None], number: int, names: Sequence[str]) -> None:
    """Raise ShardsRefused where a shard that is there cannot be searched together with the others.

    Args:
        overviews: of all shards. number: of the one that is looked at. names: of all.
    """
    one = overviews[number]
    if one is None:
        return
    for place, other in enumerate(overviews):
        if place == number or other is None:
            continue
        both = f"the shards {names[min(place, number)]} and {names[max(place, number)]}"
        if one.origin != other.origin:
            raise ShardsRefused(f"{both} were made with different checkpoints; {_TOGETHER}.")
        if (one.embedder.kind, one.embedder.sha256) != (other.embedder.kind, other.embedder.sha256):
            raise ShardsRefused(f"{both} were clustered by different embedders; {_TOGETHER}.")


def check_ids(ids: Mapping[int, Ids], names: Sequence[str]) -> None:
    """Looks at the ids of shards, each of which may have those alone that no shard before it has.

    Args:
        ids: by the number of the shard. names: of all shards.

    Raises:
        SharedId: two shards have a photo with one id.
    """
    seen = np.zeros(1 + max((int(some.max()) for some in ids.values() if len(some)), default=0), np.bool_)
    for number, some in ids.items():
        if (shared := seen[some]).any():
            photo = some[shared][0]
            other = next(other for other in ids if (ids[other] == photo).any())
            first, second = sorted((other, number))
            raise SharedId(
                number,
                f"the shards {names[first]} and {names[second]} both have a photo with the id {photo}; {_TOGETHER}.",
            )
        seen[some] = True

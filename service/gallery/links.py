"""Links to the shards of a gallery, in this process or elsewhere, and one round of questions to several of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from model.terminal import Refusal
from service.errors import ShardsLost
from service.gallery.shard import Call, Overview, Shard

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
        """The answer. Raises ShardUnavailable where it is not there in time, and whatever the question raises."""


@dataclass(frozen=True)
class State:
    """The state of a shard. made: of the generation in use. refusal: why what is newer is not used; None if none is."""

    made: str
    refusal: str | None = None


class ShardLink(Protocol):
    """The way to one shard. Its methods may be called from any thread, and return at once.

    Attributes:
        name: of the shard, as users are told it.
    """

    name: str

    def state(self) -> Pending[State]:
        """What it has now. ShardRefuses where there is no generation."""

    def overview(self, made: str) -> Pending[Overview]:
        """The summary of a generation."""

    def ask(self, made: str, question: Call[T]) -> Pending[T]:
        """Ask a generation."""


class Asks(Protocol):
    """The shards of one search."""

    def check_complete(self) -> None:
        """Raises ShardsLost where a shard is not to be asked: what is looked for may be there."""

    def ask(self, questions: Mapping[int, Call[T]]) -> dict[int, T]:
        """The answers to questions, by the number of their shard. Raises ShardsLost where a shard does not answer."""


class Alone:
    """The one shard of a gallery, in this process: it always answers."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def check_complete(self) -> None:
        """There is no other shard."""

    def ask(self, questions: Mapping[int, Call[T]]) -> dict[int, T]:
        """The answers, however long they take."""
        return {number: question.answer(self._shard) for number, question in questions.items()}


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
        """The answers to questions, by the number of their shard. All are asked at the same time.

        Raises ShardsLost where a shard does not answer.
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
        if lost:
            raise ShardsLost(lost)
        return answers

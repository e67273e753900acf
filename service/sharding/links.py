"""Links to shards, wherever they are, and one round of questions to several of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from service.errors import ShardsLost
from service.sharding.errors import ShardUnavailable
from service.sharding.shard import Call, Overview

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """An answer that is on its way."""

    def result(self, seconds: float) -> T_co:
        """The answer. Raises ShardUnavailable where it is not there in time, and whatever the question raises."""


class ShardLink(Protocol):
    """The way to one shard. Its methods may be called from any thread, and return at once.

    Attributes:
        name: of the shard, as users are told it.
    """

    name: str

    def state(self) -> Pending[str]:
        """The ``made`` of the generation in use. ShardRefuses where there is none."""

    def overview(self, made: str) -> Pending[Overview]:
        """The summary of a generation."""

    def ask(self, made: str, question: Call[T]) -> Pending[T]:
        """Ask a generation."""


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

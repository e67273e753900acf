"""The errors of a gallery in several shards."""

from __future__ import annotations

from model.terminal import Refusal


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


class ShardUnavailable(Refusal):
    """A shard did not answer, or not in time."""


class ShardRefuses(ShardUnavailable):
    """A shard answers that it cannot be searched, and why."""


class GenerationGone(ShardUnavailable):
    """A shard no longer has the generation that a search began with."""

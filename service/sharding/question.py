"""A question to a shard: it goes to where the shard is, and is answered there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from service.sharding.shard import Shard

T_co = TypeVar("T_co", covariant=True)


class Question(ABC, Generic[T_co]):
    """Something that is asked of one generation of a shard. Rows are counted in the shard."""

    @abstractmethod
    def answer(self, shard: Shard) -> T_co:
        """The answer, computed where the shard's files are."""

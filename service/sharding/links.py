"""Defines what a shard can be asked, and how it may fail to answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer import EmbedderEntry, Origin
from model.errors import Refusal
from service.gallery import Clusters, LocalGallery

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ShardUnavailable(Refusal):
    """A shard did not answer, or not in time."""


class ShardRefuses(ShardUnavailable):
    """A shard answers that it cannot be searched, and why."""


class GenerationGone(ShardUnavailable):
    """A shard no longer has the generation that a search began with."""


class WrongAnswer(ShardUnavailable):
    """A shard answered what cannot be, so nothing that it says counts."""


@dataclass(frozen=True)
class State:
    """The generation that a shard uses, and why a newer one on its disk could not be opened, or None."""

    generation_id: str
    refusal: str | None = None


@dataclass(frozen=True)
class Overview:
    """Tells a search about a shard's generation, before it can ask the shard.

    ids: (p,) int32 ascending, of its photos: a build by Ray gives no higher ones.
    """

    generation_id: str
    generation: str
    ids: NDArray[np.int32]
    clusters: Clusters
    origin: Origin
    embedder: EmbedderEntry

    @property
    def photos(self) -> int:
        return len(self.ids)

    def has(self, ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Returns which of these are ids of its photos, (m,)."""
        if not self.photos:
            return np.zeros(len(ids), np.bool_)
        # Numbers of another type would have all ids copied.
        wanted = np.clip(ids, 0, np.iinfo(np.int32).max).astype(np.int32)
        found: NDArray[np.bool_] = self.ids[np.searchsorted(self.ids, wanted).clip(max=self.photos - 1)] == ids
        return found


def overview(shard: LocalGallery) -> Overview:
    index = shard.index
    ids = np.sort(index.ids).astype(np.int32)
    return Overview(index.generation_id, index.generation, ids, shard.clusters, index.manifest.origin, index.embedder)


class Pending(Protocol[T_co]):
    """An answer that is on its way."""

    def result(self, seconds: float) -> T_co:
        """Waits for the answer. Raises ShardUnavailable without one in time, and what the question raises."""


class ShardLink(Protocol):
    """The way to one shard, which has a name for users. Any thread may call its methods, which return at once."""

    name: str

    def state(self) -> Pending[State]:
        """Returns what the shard has now. Raises ShardRefuses if it has no generation."""

    def ask(
        self,
        generation_id: str,
        question: Callable[Concatenate[LocalGallery, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> Pending[T]:
        """Computes a function of a generation where its files are. Raises GenerationGone and ShardRefuses.

        question: a method of ``LocalGallery``, or a function of a module. Arguments and answer are pickled.
        """

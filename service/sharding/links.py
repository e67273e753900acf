"""The way to a shard: what it can be asked, and how it may fail to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Protocol, TypeVar

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


@dataclass(frozen=True)
class State:
    """The state of a shard.

    Attributes:
        generation_id: of the generation that is in use.
        refusal: why a newer generation on the disk could not be opened; None if there is none.
    """

    generation_id: str
    refusal: str | None = None


@dataclass(frozen=True)
class Overview:
    """A summary of a generation of a shard, which whoever searches must know before it can ask the shard.

    Attributes:
        generation_id: tells it apart from those of all indexes. generation: its name in the shard's folder.
        photos: how many it has. clusters: the shard's.
        origin: the network that made the rows. embedder: what the photos were clustered by.
    """

    generation_id: str
    generation: str
    photos: int
    clusters: Clusters
    origin: Origin
    embedder: EmbedderEntry


def overview(shard: LocalGallery) -> Overview:
    """Summarises a shard."""
    index = shard.index
    return Overview(
        index.generation_id, index.generation, index.photo_count, shard.clusters, index.manifest.origin, index.embedder
    )


class Pending(Protocol[T_co]):
    """An answer that is on its way."""

    def result(self, seconds: float) -> T_co:
        """Waits for the answer. Raises ShardUnavailable if it does not come in time, and what the question raises."""


class ShardLink(Protocol):
    """The way to one shard. Its methods may be called from any thread, and return at once.

    Attributes:
        name: of the shard, as users see it.
    """

    name: str

    def state(self) -> Pending[State]:
        """Returns what the shard has now. Raises ShardRefuses if there is no generation."""

    def ask(
        self,
        generation_id: str,
        question: Callable[Concatenate[LocalGallery, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> Pending[T]:
        """Has a function of a generation computed where its files are. Raises GenerationGone and ShardRefuses.

        question: a method of ``LocalGallery``, or a function of a module. Arguments and answer are pickled.
        """

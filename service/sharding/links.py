"""Defines what a shard can be asked, and how it may fail to answer."""

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
    """The generation that a shard uses, and why a newer one on its disk could not be opened, or None."""

    generation_id: str
    refusal: str | None = None


@dataclass(frozen=True)
class Overview:
    """Tells a search about a shard's generation, before it can ask the shard."""

    generation_id: str
    generation: str
    photos: int
    clusters: Clusters
    origin: Origin
    embedder: EmbedderEntry


def overview(shard: LocalGallery) -> Overview:
    index = shard.index
    return Overview(
        index.generation_id, index.generation, index.photo_count, shard.clusters, index.manifest.origin, index.embedder
    )


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

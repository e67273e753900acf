"""Defines requests to shards and their answers, whose numbers must be finite."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer import EmbedderEntry, NetworkIdentity, PhotoUnavailable, UnknownPhoto
from sketch_search.model.engine import Floats
from sketch_search.model.errors import UserError
from sketch_search.model.search import Clusters
from sketch_search.service.gallery import LocalGallery

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ShardUnavailable(UserError):
    """A shard did not answer, or not in time, or with numbers that are not finite."""


class ShardRefuses(ShardUnavailable):
    """A shard answers that it cannot be searched, with the reason."""


@dataclass(frozen=True)
class State:
    """The generation that a shard uses, and the reason why a newer one on its disk could not be opened, or None."""

    generation_id: str
    refusal: str | None = None


@dataclass(frozen=True)
class Overview:
    """A shard's generation as a search knows it.

    ids: (p,) int32 ascending, as a build by Ray assigns them. presence: as of a ``PhotoGallery``.
    """

    generation_id: str
    generation: str
    ids: NDArray[np.int32]
    clusters: Clusters
    identity: NetworkIdentity
    embedder: EmbedderEntry
    presence: Floats | None

    @property
    def photos(self) -> int:
        return len(self.ids)

    def has(self, ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Returns which of these ids are its photos', (m,)."""
        if not self.photos:
            return np.zeros(len(ids), np.bool_)
        # Numbers of another type would cause all ids to be copied.
        wanted = np.clip(ids, 0, np.iinfo(np.int32).max).astype(np.int32)
        found: NDArray[np.bool_] = self.ids[np.searchsorted(self.ids, wanted).clip(max=self.photos - 1)] == ids
        return found


def overview(shard: LocalGallery) -> Overview:
    index = shard.index
    ids = np.sort(index.ids).astype(np.int32)
    network, embedder = index.manifest.identity, index.manifest.embedder
    return Overview(index.generation_id, index.generation, ids, shard.clusters, network, embedder, shard.presence)


class Pending(Protocol[T_co]):
    """An answer that is on its way."""

    def result(self, seconds: float) -> T_co:
        """Waits for the answer. Raises ShardUnavailable if it is late, and the errors of the request."""


class ShardLink(Protocol):
    """The connection to one shard, with a name for users. Any thread may call its methods, which return at once."""

    name: str

    def state(self) -> Pending[State]:
        """Returns the current state of the shard. Raises ShardRefuses if it has no generation."""

    def ask(self, generation_id: str, question: Callable[..., T], *arguments: Any) -> Pending[T]:
        """Computes a method of ``LocalGallery`` or a module's function where the files are. Raises ShardUnavailable."""


def receive(pending: Pending[T], seconds: float) -> T:
    """Waits for an answer. Raises ShardUnavailable, and UnknownPhoto and PhotoUnavailable of the request."""
    try:
        answer = pending.result(seconds)
    # For the client. Other errors are the shard's own.
    except (UnknownPhoto, PhotoUnavailable, ShardUnavailable):
        raise
    except UserError as error:
        raise ShardUnavailable(f"it failed: {error}") from error
    if not _is_finite(answer):
        raise ShardUnavailable("its answer has numbers that are not finite; run `sketch-search index verify` there")
    return answer


def _is_finite(answer: object) -> bool:
    if isinstance(answer, np.ndarray):
        return answer.dtype.kind != "f" or bool(np.isfinite(answer).all())
    if isinstance(answer, list | tuple):
        return all(map(_is_finite, answer))
    return not is_dataclass(answer) or all(map(_is_finite, vars(answer).values()))

"""Defines requests to shards, and checks what the ingress relies on: types, shapes, finite numbers, rows, ids."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer import EmbedderEntry, NetworkIdentity, PhotoEntry, PhotoUnavailable, UnknownPhoto
from sketch_search.model.engine import Floats, Modality, Tokens
from sketch_search.model.errors import UserError
from sketch_search.model.search import Clusters, Nearest, PhotoRows, Query
from sketch_search.model.things import Matched
from sketch_search.service.gallery import LocalGallery

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# No score, logit or token value comes near this; squares and sums of these numbers are finite.
_LARGEST = np.float32(1e6)
# A media type, which becomes a header of an answer.
_IMAGE = re.compile(r"image/[\w.+-]{1,40}", re.ASCII)


class ShardUnavailable(UserError):
    """A shard did not answer, or not in time, or its answer was invalid, so that all its answers are ignored."""


class ShardRefuses(ShardUnavailable):
    """A shard answers that it cannot be searched, with the reason."""


@dataclass(frozen=True)
class State:
    """The generation that a shard uses, and the reason why a newer one on its disk could not be opened, or None."""

    generation_id: str
    refusal: str | None = None


@dataclass(frozen=True)
class Overview:
    """A shard's generation as a search knows it. ids: (p,) int32 ascending, as a build by Ray assigns them."""

    generation_id: str
    generation: str
    ids: NDArray[np.int32]
    clusters: Clusters
    identity: NetworkIdentity
    embedder: EmbedderEntry

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
    manifest = index.manifest
    return Overview(index.generation_id, index.generation, ids, shard.clusters, manifest.identity, manifest.embedder)


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


@dataclass(frozen=True)
class Checked(Generic[T]):
    """An answer that is on its way, and is checked when it arrives; see ``Pending``."""

    pending: Pending[T]
    can_be: Callable[[Any], bool]

    def result(self, seconds: float) -> T:
        """Returns the answer. Raises ShardUnavailable, and UnknownPhoto and PhotoUnavailable of the request."""
        try:
            answer = self.pending.result(seconds)
            fits = self.can_be(answer)
        # For the client. Other errors are the shard's own.
        except (UnknownPhoto, PhotoUnavailable, ShardUnavailable):
            raise
        except UserError as error:
            raise ShardUnavailable(f"it failed: {error}") from error
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ShardUnavailable(f"its answer cannot be read ({type(error).__name__})") from error
        if not fits:
            raise ShardUnavailable("its answer is invalid: the shard may be damaged, or of another version")
        return answer


def can_be_state(answer: Any) -> bool:
    return isinstance(answer, State) and answer.generation_id.isascii() and isinstance(answer.refusal, str | None)


def can_be_overview(answer: Any, generation_id: str) -> bool:
    if not isinstance(answer, Overview) or answer.generation_id != generation_id:
        return False
    clusters, identity, count = answer.clusters, answer.identity, len(answer.clusters.sizes)
    return (
        isinstance(identity, NetworkIdentity)
        and isinstance(answer.embedder, EmbedderEntry)
        and _is_array(answer.ids, "i", None, end=2**31)
        and bool((np.diff(answer.ids) > 0).all())
        and _is_array(clusters.sizes, "iu", count, end=answer.photos + 1)
        and int(clusters.sizes.sum()) == answer.photos
        and _is_array(clusters.vectors, "f", count, identity.width)
        and _is_array(clusters.features, "f", count, identity.tokens, identity.width)
        and _is_array(clusters.positions, "iu", count, identity.tokens - 1, end=identity.cells)
        and (clusters.embeddings is None or _is_array(clusters.embeddings, "f", count, None))
    )


class ResponseValidator:
    """Checks the answers of a shard's generation, by the arguments of requests. Methods may raise anything."""

    def __init__(self, one: Overview) -> None:
        self._one = one

    def packed_nearest(self, found: Nearest, query: Query) -> bool:
        count = len(found)
        columns = [(found.by_vector, True), (found.by_word, query.word), (found.likeness, query.liked)]
        return (
            _is_array(found.rows, "iu", count, end=self._one.photos)
            and self._are_ids(found.ids, count)
            and all(wanted is None if column is None else _is_array(column, "f", count) for column, wanted in columns)
            and (found.by_thing is None or _is_array(found.by_thing, "f", count, len(query.sketch or ())))
        )

    def matches(self, answer: Any, query: Query, rows: PhotoRows) -> bool:
        return _is_array(answer, "f", len(rows))

    def scored(self, answer: Any, query: Query, rows: PhotoRows, wanted: PhotoRows) -> bool:
        vectors, scores, fits = answer
        return (
            self.vectors(vectors, rows)
            and _is_array(scores, "f", len(wanted))
            and (_is_array(fits, "f", len(rows)) if query.things else fits is None)
        )

    def matched(self, found: Any, query: Query, rows: PhotoRows) -> bool:
        sizes = len(query.things), len(rows)
        return (
            isinstance(found, Matched)
            and _is_array(found.scores, "f", *sizes)
            and _is_array(found.cells, "iu", *sizes, end=self._one.identity.regions)
            and _is_array(found.regions, "f", *sizes, None)
        )

    def passing(self, counts: Any, wanted: Any) -> bool:
        sizes = self._one.clusters.sizes
        return _is_array(counts, "iu", len(sizes), end=2**31) and bool((counts <= sizes).all())

    def newest(self, answer: Any, wanted: Any, count: int) -> bool:
        rows, days = answer
        fits = _is_array(rows, "iu", None, end=self._one.photos) and len(rows) <= count
        return fits and _is_array(days, "iu", len(rows))

    def rows_there(self, rows: Any, ids: Sequence[int]) -> bool:
        return _is_array(rows + 1, "iu", len(ids), end=self._one.photos + 1)

    def entries(self, found: Any, rows: PhotoRows) -> bool:
        return self._are_ids(np.array([one.id for one in found], np.int64), len(rows)) and all(
            isinstance(one, PhotoEntry) and one.cluster in range(len(self._one.clusters.sizes)) for one in found
        )

    def vectors(self, vectors: Any, rows: PhotoRows) -> bool:
        # Their length is 1, or less for a mean of several; in 16 bits a little more.
        return _is_array(vectors, "f", len(rows), self._one.identity.width) and bool((np.abs(vectors) <= 1.01).all())

    def tokens(self, tokens: Any, rows: PhotoRows) -> bool:
        identity = self._one.identity
        return _is_array(tokens.features, "f", len(rows), identity.tokens, identity.width) and _is_array(
            tokens.positions, "iu", len(rows), identity.tokens - 1, end=identity.cells
        )

    def nearness(self, answer: Any, given: Tokens, modality: Modality, mean: Floats) -> bool:
        ids, near = answer
        return self._are_ids(ids, self._one.photos) and _is_array(near, "f", len(ids))

    def alike(self, answer: Any, photos: Floats, count: int, mean: Floats) -> bool:
        wanted = min(count, self._one.photos)
        return len(answer) == len(photos) and all(
            self._are_ids(ids, wanted) and _is_array(near, "f", wanted) for ids, near in answer
        )

    def open_photo(self, data: Any, photo: int) -> bool:
        return isinstance(data, bytes)

    def original(self, answer: Any, photo: int) -> bool:
        size, media = answer
        return isinstance(size, int) and size >= 0 and (media is None or _IMAGE.fullmatch(media) is not None)

    def part_of_photo(self, data: Any, photo: int, size: int, start: int, count: int) -> bool:
        return isinstance(data, bytes) and len(data) <= count

    def _are_ids(self, ids: Any, count: int) -> bool:
        fits = _is_array(ids, "iu", count, end=2**31) and len(np.unique(ids)) == count
        return fits and bool(self._one.has(ids).all())


def _is_array(value: Any, kinds: str, *shape: int | None, end: int | None = None) -> bool:
    """Checks kind, shape (None: any length) and range: below ``end`` from 0, or finite and not too large."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype.kind in kinds
        and len(value.shape) == len(shape)
        and all(wanted in (None, there) for wanted, there in zip(shape, value.shape, strict=True))
        and bool(((value >= 0) & (value < end)).all() if end is not None else (np.abs(value) < _LARGEST).all())
    )

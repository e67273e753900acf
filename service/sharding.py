"""Searches several indexes, each on some machine, as one; tracks which of them answer.

A search is of the generation it began with, in two rounds: shards with the best clusters send ids and scores by vector,
12 bytes a photo; those of the best then score pairs.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from sketch_search import indexer
from sketch_search.indexer.store.generation import Manifest
from sketch_search.model.decoding import FileInParts
from sketch_search.model.engine import Floats, Modality, Tokens, expectations
from sketch_search.model.engine.detector import no_boxes
from sketch_search.model.errors import UserError
from sketch_search.model.limits import System
from sketch_search.model.search import Clusters, Gallery, Ids, Nearest, PhotoRows, Query, Scored, Scores, most_alike
from sketch_search.model.things import Matched
from sketch_search.service.errors import NotReady, ShardsLost
from sketch_search.service.gallery import LocalGallery
from sketch_search.service.schemas.explain import ShardInfo

T = TypeVar("T")
D = TypeVar("D", bound=np.generic)

log = logging.getLogger("sketch_search")


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
    manifest: Manifest
    ids: NDArray[np.int32]
    clusters: Clusters
    presence: Floats | None
    boxes: bool

    @property
    def photos(self) -> int:
        return len(self.ids)

    def has(self, ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Returns which of these ids are its photos', (m,)."""
        if not self.photos:
            return np.zeros(len(ids), np.bool_)
        # Numbers of another type would cause all ids to be copied.
        small_ids = np.clip(ids, 0, np.iinfo(np.int32).max).astype(np.int32)
        return np.asarray(self.ids[np.searchsorted(self.ids, small_ids).clip(max=self.photos - 1)] == ids)


def overview(shard: LocalGallery) -> Overview:
    index = shard.index
    ids = np.sort(index.ids[index.wholes]).astype(np.int32)
    return Overview(index.generation_id, index.manifest, ids, shard.clusters, shard.presence, shard.boxes_kept)


#: Waits so many seconds for an answer. Raises ShardUnavailable if it is late, and the errors of the request.
Pending: TypeAlias = Callable[[float], T]


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
        answer = pending(seconds)
    # For the client. Other errors are the shard's own.
    except (indexer.UnknownPhoto, indexer.PhotoUnavailable, ShardUnavailable):
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


class Layout:
    """The photos of all shards that answer, one after the other; a missing one has empty clusters.

    overviews: None for shards that never answered. asked: shards with photos. row_starts, cluster_starts: of each.
    """

    def __init__(self, overviews: Sequence[Overview | None], missing: frozenset[int]) -> None:
        self.overviews = tuple(overviews)
        shown = [None if number in missing else shard for number, shard in enumerate(overviews)]
        photos = [0 if shard is None else shard.photos for shard in shown]
        rows = [0 if shard is None else int(shard.clusters.rows.sum()) for shard in shown]
        clusters = [0 if shard is None else len(shard.clusters.sizes) for shard in overviews]
        self.row_ends, self.cluster_ends = np.cumsum(rows), np.cumsum(clusters)
        self.row_starts, self.cluster_starts = self.row_ends - rows, self.cluster_ends - clusters
        self.asked = tuple(number for number, count in enumerate(photos) if count)
        self.photo_count = sum(photos)
        known = [shard.photos * shard.presence for shard in shown if shard is not None and shard.presence is not None]
        self.expects = expectations(np.sum(known, axis=0) / self.photo_count) if self.photo_count and known else None
        held = [(number, shard.clusters) for number, shard in enumerate(overviews) if shard is not None]
        none = {number: np.zeros_like(clusters.sizes) for number, clusters in held if number in missing}
        self.clusters = _joined(
            [replace(kept, sizes=none[n], parts=none[n]) if n in missing else kept for n, kept in held]
        )

    def homes(self, ids: Ids) -> NDArray[np.int64]:
        """Returns the shards of the photos with these ids, (m,); -1 for an unknown id."""
        homes = np.full(len(ids), -1, np.int64)
        for number, shard in enumerate(self.overviews):
            if shard is not None:
                homes[shard.has(ids)] = number
        return homes


def _joined(shards: Sequence[Clusters]) -> Clusters:
    embeddings = [clusters.embeddings for clusters in shards if clusters.embeddings is not None]
    return Clusters(
        np.concatenate([clusters.sizes for clusters in shards]),
        np.concatenate([clusters.vectors for clusters in shards]),
        np.concatenate([clusters.features for clusters in shards]),
        np.concatenate([clusters.positions for clusters in shards]),
        np.concatenate(embeddings) if len(embeddings) == len(shards) else None,
        np.concatenate([clusters.rows - clusters.sizes for clusters in shards]),
    )


class ShardedGallery(Gallery):
    """The photos of the shards that answer, for one search or lookup; its methods are those of a ``LocalGallery``."""

    system: System = "default"
    created = None

    def __init__(
        self,
        links: Sequence[ShardLink],
        layouts: Callable[[frozenset[int]], Layout],
        missing: frozenset[int],
        seconds: float,
        lose: Callable[[Mapping[str, str]], None],
    ) -> None:
        """layouts: of generations, by the shards that are missing. seconds: within which a shard must answer.

        lose: called with the names of shards that do not, and why.
        """
        self._links, self._layouts, self._seconds, self._lose = links, layouts, seconds, lose
        self._missing, self._layout = missing, (layout := layouts(missing))
        shards = [shard for shard in layout.overviews if shard is not None]
        self.clusters, self.photo_count, known = layout.clusters, layout.photo_count, shards[0].manifest
        self.embedder, self.tokens_kept = known.embedder, known.tokens
        self.regions_kept = known.regions if self.tokens_kept > 1 else 0
        self.boxes_kept = any(shard.boxes for shard in shards)
        self.computed = tuple(sorted({way for shard in shards for way in shard.manifest.computed}))
        self.missing = tuple(links[number].name for number in sorted(missing))
        names = ["-" if shard is None else shard.manifest.generation for shard in layout.overviews]
        self.generation = names[0] if len(set(names)) == 1 else "+".join(names)
        self.generation_id = "+".join("-" if shard is None else shard.generation_id for shard in layout.overviews)

    def without(self, lost: ShardsLost) -> "ShardedGallery":
        missing = self._missing.union(n for n, link in enumerate(self._links) if link.name in lost.names)
        if missing == self._missing:
            raise lost
        if len(missing) == len(self._links):
            raise NotReady("No shard of the gallery answers. Try again in a moment.")
        return ShardedGallery(self._links, self._layouts, missing, self._seconds, self._lose)

    @property
    def expects(self) -> Floats | None:
        return self._layout.expects

    def _begin(self, shard: int, question: Callable[..., T], *arguments: Any) -> Pending[T]:
        overview = self._layout.overviews[shard]
        assert overview is not None  # this shard has no photos
        return self._links[shard].ask(overview.generation_id, question, *arguments)

    def _answers(self, pending: dict[int, Pending[T]]) -> dict[int, T]:
        """Returns the answers by the shard's number. Raises ShardsLost if one does not answer."""
        until = time.monotonic() + self._seconds
        answers: dict[int, T] = {}
        lost: dict[str, str] = {}
        for shard, answer in pending.items():
            try:
                answers[shard] = receive(answer, max(0.0, until - time.monotonic()))
            except ShardUnavailable as error:
                lost[self._links[shard].name] = str(error)
        if lost:
            self._lose(lost)
            raise ShardsLost([*lost])
        return answers

    def _ask_all(self, question: Callable[..., T], *arguments: Any) -> dict[int, T]:
        return self._answers({shard: self._begin(shard, question, *arguments) for shard in self._layout.asked})

    def _ask_homes(
        self, question: Callable[..., T], rows: PhotoRows, *before: Any
    ) -> Sequence[tuple[NDArray[np.int64], int, T]]:
        """Asks their shards about these photos: which photos, the shard, its answer. before: arguments before rows."""
        split = list(self._by_shard(rows))
        answers = self._answers({shard: self._begin(shard, question, *before, local) for shard, _, local in split})
        return [(indices, shard, answers[shard]) for shard, indices, _ in split]

    def _filled(
        self, out: NDArray[D], question: Callable[..., NDArray[D]], rows: PhotoRows, *before: Any
    ) -> NDArray[D]:
        """Fills ``out``, (m, ...), with what their shards answer about these photos, and returns it."""
        for indices, _, answer in self._ask_homes(question, rows, *before):
            out[indices] = answer
        return out

    def _by_shard(self, rows: PhotoRows) -> Iterator[tuple[int, NDArray[np.int64], PhotoRows]]:
        """Yields each shard with some of these photos: its number, which photos, and their rows there."""
        shards = np.searchsorted(self._layout.row_ends, rows, side="right")
        for shard in np.unique(shards).tolist():
            indices = np.flatnonzero(shards == shard)
            yield shard, indices, rows[indices] - self._layout.row_starts[shard]

    def matches(self, query: Query, rows: PhotoRows) -> Scores:
        return self._filled(np.empty(len(rows), np.float32), LocalGallery.matches, rows, query)

    def scored(self, query: Query, rows: PhotoRows, to_score: NDArray[np.int64]) -> Scored:
        without_sketch, scores = replace(query, sketch=None), np.full(len(rows), np.nan, np.float32)
        split = list(self._by_shard(rows))
        of_shard = {shard: np.flatnonzero(np.isin(indices, to_score)) for shard, indices, _ in split}
        pending: dict[int, Pending[Scored]] = {}
        for shard, _, local in split:
            shard_query = query if len(of_shard[shard]) else without_sketch
            pending[shard] = self._begin(shard, LocalGallery.scored, shard_query, local, of_shard[shard])
        answers = self._answers(pending)
        vectors = np.empty((len(rows), self.clusters.vectors.shape[1]), np.float16)
        for shard, indices, _ in split:
            vectors[indices], scores[indices[of_shard[shard]]], _ = answers[shard]
        matched = [part for _, _, part in answers.values() if part is not None]
        order = np.concatenate([np.empty(0, np.int64), *(indices for _, indices, _ in split)])
        return vectors, scores[to_score], Matched.joined(matched)[np.argsort(order)] if matched else None

    def matched(self, query: Query, rows: PhotoRows) -> Matched:
        parts = self._ask_homes(LocalGallery.matched, rows, replace(query, sketch=None))
        order = np.concatenate([indices for indices, _, _ in parts])
        return Matched.joined([part for _, _, part in parts])[np.argsort(order)]

    def nearest(self, query: Query) -> Nearest:
        if query.sketch is not None:
            query = replace(query, sketch=query.sketch.without_patches)
        shards = np.searchsorted(self._layout.cluster_ends, query.clusters, side="right")
        pending: dict[int, Pending[Nearest]] = {}
        for shard in np.intersect1d(shards, self._layout.asked).tolist():
            clusters = query.clusters[shards == shard] - self._layout.cluster_starts[shard]
            pending[shard] = self._begin(shard, packed_nearest, replace(query, clusters=clusters))
        answers = self._answers(pending).items()
        parts = [replace(part, rows=part.rows + self._layout.row_starts[shard]) for shard, part in answers]
        return Nearest.joined([Nearest.nothing(query), *parts]).best(query)

    def count_passing(self, photo_filter: indexer.PhotoFilter) -> NDArray[np.int64]:
        counts = np.zeros_like(self.clusters.sizes)
        for shard, of_shard in self._ask_all(LocalGallery.count_passing, photo_filter).items():
            start = self._layout.cluster_starts[shard]
            counts[start : start + len(of_shard)] = of_shard
        return counts

    def newest(self, photo_filter: indexer.PhotoFilter, count: int) -> tuple[PhotoRows, NDArray[np.int64], int]:
        answers = self._ask_all(LocalGallery.newest, photo_filter, count).items()
        rows = np.concatenate([rows + self._layout.row_starts[shard] for shard, (rows, *_) in answers])
        days = np.concatenate([days for _, (_, days, _) in answers])
        best = np.argsort(-days, kind="stable")[:count]
        return rows[best], days[best], sum(passing for _, (*_, passing) in answers)

    def without_photos(self, folders: Sequence[str]) -> tuple[str, ...]:
        answers = self._ask_all(LocalGallery.without_photos, folders).values()
        return tuple(folder for folder in folders if all(folder in empty for empty in answers))

    def rows_of_ids(self, ids: Sequence[int]) -> PhotoRows:
        """Raises ShardsLost if a photo is not found but may be in a missing shard."""
        photos = np.array(ids, np.int64)
        homes, found_rows = self._layout.homes(photos), np.full(len(photos), -1, np.int64)
        # The id of a duplicate is not a photo's. Only its shard can resolve it.
        parts = {shard: np.flatnonzero((homes == shard) | (homes < 0)) for shard in self._layout.asked}
        questions = {shard: photos[part].tolist() for shard, part in parts.items() if len(part)}
        pending = {shard: self._begin(shard, rows_there, shard_photos) for shard, shard_photos in questions.items()}
        for shard, rows in self._answers(pending).items():
            held = rows >= 0
            found_rows[parts[shard][held]] = rows[held] + self._layout.row_starts[shard]
        if (found_rows < 0).any():
            if self.missing:
                raise ShardsLost(self.missing)
            raise indexer.UnknownPhoto(f"no photo has the id {ids[int(np.argmin(found_rows))]}.")
        return found_rows

    def entries(self, rows: PhotoRows) -> tuple[indexer.PhotoEntry, ...]:
        by_index: dict[int, indexer.PhotoEntry] = {}
        for indices, shard, entries in self._ask_homes(LocalGallery.entries, rows):
            first = int(self._layout.cluster_starts[shard])
            for index, entry in zip(indices.tolist(), entries, strict=True):
                by_index[index] = replace(entry, cluster=entry.cluster + first)
        return tuple(by_index[index] for index in range(len(rows)))

    def photos(self, ids: Sequence[int]) -> tuple[indexer.PhotoEntry, ...]:
        return self.entries(self.rows_of_ids(ids))

    def paths(self, rows: PhotoRows) -> list[tuple[str, ...]]:
        return [entry.paths for entry in self.entries(rows)]

    def photo(self, photo: int) -> indexer.PhotoEntry:
        return self.photos([photo])[0]

    def with_parts(self, rows: PhotoRows) -> tuple[NDArray[np.int64], PhotoRows]:
        answers = self._ask_homes(LocalGallery.with_parts, rows)
        shown = [(indices[of], local + self._layout.row_starts[shard]) for indices, shard, (of, local) in answers]
        photos, shown_by = (np.concatenate(column) for column in zip(*shown, strict=True))
        return photos, shown_by

    def vectors(self, rows: PhotoRows) -> Floats:
        vectors = np.empty((len(rows), self.clusters.vectors.shape[1]), np.float32)
        return self._filled(vectors, LocalGallery.vectors, rows)

    def boxes(self, rows: PhotoRows) -> NDArray[np.uint8]:
        return self._filled(no_boxes(len(rows)), LocalGallery.boxes, rows)

    def tokens(self, rows: PhotoRows) -> Tokens:
        parts = self._ask_homes(LocalGallery.tokens, rows)
        order = np.concatenate([indices for indices, _, _ in parts])
        return Tokens.cat([tokens for _, _, tokens in parts])[np.argsort(order)]

    def rank_all(self, subject: Tokens, modality: Modality) -> tuple[Ids, Scores]:
        answers = self._ask_all(LocalGallery.rank_all, subject, modality, self.clusters.mean)
        ids, near = zip(*(answers[shard] for shard in self._layout.asked), strict=True)
        return np.concatenate(ids), np.concatenate(near)

    def alike(self, photos: Floats, count: int) -> list[tuple[Ids, Scores]]:
        answers = self._ask_all(LocalGallery.alike, photos, count, self.clusters.mean).values()
        return [most_alike(parts, count) for parts in zip(*answers, strict=True)]

    def photo_at(self, target: str) -> indexer.PhotoEntry:
        raise indexer.BadInvocation(f"name photos of several shards by their ids, not by paths such as {target}.")

    def address_of(self, shown: str) -> str:
        raise indexer.BadInvocation(f"name photos of several shards by their ids, not by paths such as {shown}.")

    def open_photo(self, photo: int) -> FileInParts:
        size, _ = self.original(photo)
        return FileInParts(size, partial(self.part_of_photo, photo, size))

    def original(self, photo: int) -> tuple[int, str | None]:
        return self._ask_home(photo, LocalGallery.original)

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        return self._ask_home(photo, LocalGallery.part_of_photo, size, start, count)

    def _ask_home(self, photo: int, question: Callable[..., T], *arguments: int) -> T:
        ((shard, _, _),) = self._by_shard(self.rows_of_ids([photo]))
        return self._answers({shard: self._begin(shard, question, photo, *arguments)})[shard]


def packed_nearest(shard: LocalGallery, query: Query) -> Nearest:
    """Returns ``LocalGallery.nearest`` with rows and ids in four bytes, which are enough for a build by Ray."""
    nearest = shard.nearest(query)
    return replace(nearest, rows=nearest.rows.astype(np.int32), ids=nearest.ids.astype(np.int32))


def rows_there(shard: LocalGallery, ids: Sequence[int]) -> PhotoRows:
    """Returns the rows of the photos with these ids, (m,); -1 for those in other shards."""

    def row(photo: int) -> int:
        try:
            return int(shard.rows_of_ids([photo])[0])
        except indexer.UnknownPhoto:
            return -1

    return np.array([row(photo) for photo in ids], np.int64)


#: Photos of one index, or of shards, whose methods raise ShardsLost if a shard that they need does not answer.
IndexedGallery: TypeAlias = LocalGallery | ShardedGallery


_TOGETHER = "build the shards together, by `sketch-search index build FOLDER --ray ADDRESS`"


class ShardsRefused(UserError):
    """These shards cannot be searched together, or cannot be served at all."""


@dataclass(frozen=True)
class _Known:
    """The known state of a shard: the generation searched, whether it answered last, and if not, why."""

    overview: Overview | None = None
    answers: bool = False
    reason: str | None = "it has not answered yet"


class Shards:
    """The shards of a gallery, which of them answer, and the generations searched. Threads may share it.

    newest, behind, lacks_index: as of an index on this machine, of which there is none.
    """

    newest: LocalGallery | None = None
    behind = lacks_index = False

    def __init__(self, links: Sequence[ShardLink], seconds: float) -> None:
        self.links, self._seconds = tuple(links), seconds
        self._known = [_Known() for _ in links]
        # Usually all answer, or the same few do not.
        self._layout = lru_cache(maxsize=2)(partial(Layout, [None for _ in links]))
        self._lock = threading.Lock()

    @property
    def missing(self) -> frozenset[int]:
        with self._lock:
            return frozenset(n for n, known in enumerate(self._known) if not known.answers or known.overview is None)

    @property
    def refused(self) -> str | None:
        """The reason why shards do not use their newest generation while an older one is in use, or None."""
        reasons = (f"{shard.name}: {shard.reason}" for shard in self.infos if shard.answers and shard.reason)
        return "; ".join(reasons) or None

    @property
    def infos(self) -> tuple[ShardInfo, ...]:
        with self._lock:
            return tuple(_info(link.name, known) for link, known in zip(self.links, self._known, strict=True))

    def lose(self, reasons: Mapping[str, str]) -> None:
        """Records that shards with these names did not answer, and why."""
        with self._lock:
            for number, link in enumerate(self.links):
                if (reason := reasons.get(link.name)) is not None:
                    log.warning("shard %s is missing: %s", link.name, reason)
                    self._known[number] = replace(self._known[number], answers=False, reason=reason)

    def gallery(self) -> ShardedGallery:
        """Returns the current generations. Raises NotReady if no shard answers."""
        missing = self.missing
        if len(missing) == len(self.links):
            reasons = "; ".join(f"{shard.name}: {shard.reason}" for shard in self.infos if shard.reason)
            raise NotReady(f"No shard of the gallery answers ({reasons}).")
        return ShardedGallery(self.links, self._layout, missing, self._seconds, self.lose)

    def close(self) -> None:
        """Does nothing: the files are open elsewhere."""

    def refresh(self, *, strict: bool = False) -> bool:
        """Asks all shards. Returns True if generations change; misfits are refused, or ShardsRefused if ``strict``."""
        # All are asked before waiting for the first answer.
        states = [link.state() for link in self.links]
        before = [shard.overview for shard in self._known]
        fresh: dict[int, Overview] = {}
        now: list[_Known] = []
        for number, (link, pending, known) in enumerate(zip(self.links, states, before, strict=True)):
            try:
                state = receive(pending, self._seconds)
                if known is None or known.generation_id != state.generation_id:
                    fresh[number] = receive(link.ask(state.generation_id, overview), self._seconds)
                now.append(_Known(known, True, state.refusal))
            except ShardUnavailable as error:
                if strict and isinstance(error, ShardRefuses):
                    raise ShardsRefused(f"the shard {link.name} cannot be searched: {error}") from error
                now.append(_Known(known, False, str(error)))
        while fresh and (misfit := self._misfit(before, fresh)) is not None:
            number, refusal = misfit
            if strict:
                raise ShardsRefused(refusal)
            # The previous one may still be open there.
            del fresh[number]
            now[number] = replace(now[number], answers=now[number].overview is not None, reason=refusal)
        for number, shard in fresh.items():
            now[number] = replace(now[number], overview=shard)
        with self._lock:
            self._known = now
            if fresh:
                self._layout = lru_cache(maxsize=2)(partial(Layout, [shard.overview for shard in now]))
        return bool(fresh)

    def _misfit(self, before: Sequence[Overview | None], fresh: Mapping[int, Overview]) -> tuple[int, str] | None:
        """Finds a shard that does not fit the others, and why; those that come together are compared together."""
        known = {number: shard for number, shard in enumerate(before) if shard is not None}
        together = {**known, **fresh}
        # The first of two that do not fit each other stays.
        order = sorted(together, key=lambda number: (number in fresh, number))
        seen = np.zeros(
            1 + max((int(shard.ids[-1]) for shard in together.values() if shard.photos), default=0), np.bool_
        )
        for number in order:
            shard, first = together[number], together[order[0]]
            if shard.manifest.identity != first.manifest.identity:
                return number, f"{self._both(number, order[0])} were made with different checkpoints; {_TOGETHER}."
            if _clustered_by(shard) != _clustered_by(first):
                return number, f"{self._both(number, order[0])} were clustered by different embedders; {_TOGETHER}."
            if (shared := seen[shard.ids]).any():
                photo = shard.ids[shared][:1]
                other = next(other for other in order if together[other].has(photo).all())
                return number, f"{self._both(number, other)} both have a photo with the id {photo[0]}; {_TOGETHER}."
            seen[shard.ids] = True
        return None

    def _both(self, number: int, other: int) -> str:
        first, second = sorted((number, other))
        return f"the shards {self.links[first].name} and {self.links[second].name}"


def _clustered_by(shard: Overview) -> tuple[str, str | None, int]:
    """Identifies an embedder: by its kind, its hash, and the length of CLIP's vectors."""
    embeddings, embedder = shard.clusters.embeddings, shard.manifest.embedder
    return embedder.kind, embedder.sha256, 0 if embeddings is None else embeddings.shape[1]


def _info(name: str, known: _Known) -> ShardInfo:
    shard = known.overview
    return ShardInfo(
        name=name,
        answers=known.answers,
        reason=known.reason,
        generation=None if shard is None else shard.manifest.generation,
        photos=0 if shard is None else shard.photos,
        clusters=0 if shard is None else len(shard.clusters.sizes),
    )


def check_folders(folders: Sequence[Path]) -> None:
    """Raises ShardsRefused if a folder is listed twice."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (first := seen.setdefault(folder.resolve(), folder)) is not folder:
            both = f"{folder}" if first == folder else f"{first} and {folder}"
            raise ShardsRefused(f"one shard is given twice: {both}; name each folder once.")


def shard_names(folders: Sequence[Path]) -> list[str]:
    """Names shards after their folders, with numbers if two are the same."""
    names = [folder.name or "shard" for folder in folders]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]

"""Keeps track of the shards that a server searches, and which of them answer."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from sketch_search.model.errors import UserError
from sketch_search.service.errors import NotReady
from sketch_search.service.gallery import LocalGallery
from sketch_search.service.schemas.explain import ShardInfo
from sketch_search.service.sharding.gallery import (
    Layout,
    Overview,
    ShardedGallery,
    ShardLink,
    ShardRefuses,
    ShardUnavailable,
    overview,
    receive,
)

_TOGETHER = "build the shards together, by `sketch-search index build FOLDER --ray ADDRESS`"

log = logging.getLogger("sketch_search")


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

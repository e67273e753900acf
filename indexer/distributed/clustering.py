"""The clusters of all photos: k-means where the build runs, and the nearest centroid of every photo by the workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.building import Progress
from indexer.distributed.connection import Workers
from indexer.distributed.live_shards import Sources
from indexer.store import (
    Rows,
    SegmentRow,
    assign,
    read_centroids,
    trained,
    training_points,
    without_empty,
    write_centroids,
)

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
# Rows that one work assigns. The answer has four bytes for each.
_ROWS = 65_536
# A machine that ends takes at most one of these along for each of its workers.
_RETRIES = 20


@dataclass(frozen=True)
class Stretch:
    """Rows of a source: its name, the first one, and the one after the last."""

    source: str
    first: int
    end: int


@dataclass(frozen=True)
class AssignWork:
    """Rows whose nearest centroids are wanted.

    Attributes:
        shards, slices: as of ``Sources``. stretches: the rows.
        centroids: the file of the centroids. build: names the build, since its file has the name of another's.
    """

    shards: Path
    slices: Path
    stretches: tuple[Stretch, ...]
    centroids: Path
    count: int
    build: str


@dataclass(frozen=True)
class Assigned:
    """The numbers of these rows' centroids, (m,) int32, one stretch after the other."""

    stretches: tuple[Stretch, ...]
    nearest: npt.NDArray[np.int32]


def assign_rows(work: AssignWork) -> Assigned:
    """The nearest centroid of each row."""
    centroids = _centroids(work.centroids, work.count, work.build)
    sources = Sources(work.shards, work.slices, {stretch.source for stretch in work.stretches})
    nearest = [
        assign(sources[stretch.source].clustered_by(slice(stretch.first, stretch.end)), centroids)
        for stretch in work.stretches
    ]
    return Assigned(work.stretches, np.concatenate(nearest).astype(np.int32))


@lru_cache(maxsize=1)
def _centroids(path: Path, count: int, build: str) -> Floats:
    return read_centroids(path, count)


@dataclass(frozen=True)
class Clusters:
    """The clusters of m photos: centroids (c, e) float32, and each photo's number among them (m,) int64."""

    centroids: Floats
    of_photo: Numbers


def cluster_photos(
    workers: Workers,
    shards: Path,
    slices: Path,
    refs: Sequence[SegmentRow],
    count: int,
    build: str,
    progress: Progress,
) -> Clusters:
    """Cluster the photos as ``indexer.store.cluster`` does.

    Args:
        shards, slices: as of ``Sources``. refs: the photos' rows, in the order of their ids.
        count: how many clusters, 1..photos. build: its token.
    """
    sources = Sources(shards, slices, (ref.segment for ref in refs))
    sample = training_points(len(refs), count)
    taken = refs[sample] if isinstance(sample, slice) else [refs[number] for number in sample.tolist()]
    centroids = trained(np.asarray(Rows(sources).clustered_by(taken), np.float32), count)
    path = slices / "centroids.faiss"
    write_centroids(path, centroids)
    sizes = {name: len(sources[name]) for name in sources}
    progress.start("clustering", sum(sizes.values()))
    nearest = {name: np.empty(size, np.int32) for name, size in sizes.items()}

    def done(assigned: Assigned) -> None:
        start = 0
        for stretch in assigned.stretches:
            size = stretch.end - stretch.first
            nearest[stretch.source][stretch.first : stretch.end] = assigned.nearest[start : start + size]
            start += size
        progress.advance(start)

    works = (
        AssignWork(shards, slices, stretches, path, count, build)
        for stretches in _portions([Stretch(name, 0, size) for name, size in sizes.items()], _ROWS)
    )
    workers.each(assign_rows, works, done, retries=_RETRIES)
    of_photo = np.array([nearest[ref.segment][ref.number] for ref in refs], np.int64)
    return Clusters(*without_empty(centroids, of_photo))


def _portions(stretches: Sequence[Stretch], rows: int) -> Iterator[tuple[Stretch, ...]]:
    """Cuts the same rows into portions of at most so many."""
    portion: list[Stretch] = []
    room = rows
    for stretch in stretches:
        first = stretch.first
        while first < stretch.end:
            end = min(stretch.end, first + room)
            portion.append(Stretch(stretch.source, first, end))
            room -= end - first
            first = end
            if not room:
                yield tuple(portion)
                portion, room = [], rows
    if portion:
        yield tuple(portion)

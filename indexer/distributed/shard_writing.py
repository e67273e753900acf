"""A worker writes a shard: an ordinary index of its part of the photos, by an ordinary writer."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexer.building import Clustering, Contents, GenerationWriter, LiveState
from indexer.distributed.live_shards import Sources
from indexer.store import (
    Catalog,
    EmbedderEntry,
    Generation,
    IndexFolder,
    Origin,
    Root,
    RowRef,
    Rows,
    ShardEntry,
    ShardsFolder,
    clean_shard,
    open_generation,
    read_centroids,
    shard_name,
)

# Seconds. A worker whose machine is taken to be lost may still be writing, and notices within a few that it is alone.
_WAIT = 120


@dataclass(frozen=True)
class ShardWork:
    """A shard to be written.

    Attributes:
        shards: the folder of the shards. slices: that in which the build works.
        number: of the shard, from 0. plan: the file of its plan.
        live: the name of its generation that is committed; None where it has none.
        centroids: the file of all centroids. clusters: how many they are. asked: as of ``Clustering``.
        key, origin, embedder, roots: as of ``GenerationWriter``.
        next_id: the lowest id that no file in any shard has ever had.
    """

    shards: Path
    slices: Path
    number: int
    plan: Path
    live: str | None
    centroids: Path
    clusters: int
    asked: int | None
    key: str
    origin: Origin
    embedder: EmbedderEntry
    roots: tuple[Root, ...]
    next_id: int


def write_shard(work: ShardWork) -> ShardEntry:
    """Write the next generation of a shard. Readers go on with the one that is live."""
    with ShardsFolder(work.shards).writing_shard(work.number, _WAIT) as folder:
        live = _clean(folder, work.live)
        with closing(Catalog(work.plan)) as plan:
            planned, removals = plan.files(), plan.removals()
        placed = {
            file.shown_content: file.indexed
            for file in planned
            if file.shown_content is not None and file.indexed is not None
        }
        refs: dict[str, RowRef] = {content: indexed.row for content, indexed in placed.items()}
        sources = Sources(work.shards, work.slices, (indexed.row.segment for indexed in placed.values()))
        # Only the shard's own clusters, in the order of all.
        present = sorted({indexed.cluster for indexed in placed.values()})
        number = {cluster: position for position, cluster in enumerate(present)}
        clustering = Clustering(
            read_centroids(work.centroids, work.clusters)[np.array(present)],
            {content: number[indexed.cluster] for content, indexed in placed.items()},
            frozenset(placed),
            work.asked,
            kept=None,
        )
        entries = [replace(file, indexed=None) for file in planned]
        contents = Contents(entries, removals, Rows(sources), refs, clustering)
        state = LiveState(live, (), False, {}, {}, None, removals, work.next_id)
        writer = GenerationWriter(folder, work.key, work.origin, work.embedder, work.roots)
        written = writer.write(contents, state, make_live=False)
    counts = written.manifest.counts
    return ShardEntry(
        folder=shard_name(work.number),
        generation=written.name,
        photos=counts.photos,
        files=counts.files,
        bad=counts.bad,
        clusters=counts.clusters,
    )


def _clean(folder: IndexFolder, live: str | None) -> Generation | None:
    """Delete what an attempt before this one has left, so that all attempts write a generation of the same name."""
    if live is None:
        folder.clean(set(), set(), building=set())
        return None
    clean_shard(folder, live)
    return open_generation(folder, live)

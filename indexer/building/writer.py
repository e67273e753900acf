"""The end of a build: the new rows' segment, the clusters' centroids, the catalog, the manifest, and the switch."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.building.plan import LiveState, members_by_cluster, shown_order
from indexer.store import (
    PRECISION,
    Centroids,
    Counts,
    Drift,
    EmbedderEntry,
    FileEntry,
    Generation,
    IndexFolder,
    Manifest,
    Origin,
    Photo,
    Removals,
    Root,
    RootEntry,
    RowRef,
    Rows,
    SegmentEntry,
    generation_name,
    generation_number,
    map_array,
    mean_distance,
    software_version,
    sync_folder,
    write_array,
    write_atomically,
    write_catalog,
    write_centroids,
    write_segment,
)


@dataclass(frozen=True)
class Clustering:
    """Which cluster every shown photo is in.

    Attributes:
        centroids: (c, e) float32. cluster_of: by content hash. new: contents whose rows go into a new segment.
        fresh: made now, so that no centroid of the live index can stay.
        asked: how many clusters were asked for, where they are fresh; None for about sqrt(photos).
    """

    centroids: npt.NDArray[np.float32]
    cluster_of: Mapping[str, int]
    new: frozenset[str]
    fresh: bool = False
    asked: int | None = None


@dataclass(frozen=True)
class Contents:
    """What the next generation is to hold.

    Attributes:
        entries: its catalog by id, rows not filled in. removals: what the user does not want to see.
        rows: where rows are read from. refs: each shown content's row among them.
    """

    entries: Sequence[Photo]
    removals: Removals
    rows: Rows
    refs: Mapping[str, RowRef]
    clustering: Clustering


class GenerationWriter:
    """Writes the generation that follows the live one, in a building folder until it is complete.

    Args:
        key: the building folder's. origin, embedder: what made the rows. roots: the gallery's.
    """

    def __init__(
        self, folder: IndexFolder, key: str, origin: Origin, embedder: EmbedderEntry, roots: Sequence[Root]
    ) -> None:
        self._folder = folder
        self._building = folder.building(key)
        self._origin = origin
        self._embedder = embedder
        self._roots = tuple(RootEntry(name=root.name, path=str(root.path)) for root in roots)

    def write(self, contents: Contents, live: LiveState, *, anew: bool = False) -> Generation:
        """Write everything and make it live; the live generation itself where nothing has changed, unless ``anew``."""
        clustering, refs, rows = contents.clustering, contents.refs, contents.rows
        before = live.generation.manifest if live.generation else None
        # Above all that are there: a repair may go on from a generation that is not the last.
        number = 1 + max((generation_number(name) for name in self._folder.generations()), default=0)
        order = shown_order(contents.entries)
        fresh = sorted(clustering.new, key=lambda name: (clustering.cluster_of[name], order[name]))
        digest = hashlib.sha256("".join(fresh).encode()).hexdigest()[:8]
        segment = f"s{number:06d}-{digest}"
        place = {name: ref for name, ref in refs.items() if name not in clustering.new}
        place |= {name: RowRef(segment, row) for row, name in enumerate(fresh)}
        held = set() if clustering.fresh else {ref.source for ref in place.values()}
        photos = [_located(photo, place, clustering.cluster_of, held) for photo in contents.entries]
        segments = [entry for entry in before.segments if entry.id in held] if before else []
        if before is not None and live.generation is not None and not (fresh or clustering.fresh or anew):
            now = (photos, segments, self._roots, contents.removals)
            if now == (list(live.photos), list(before.segments), before.roots, live.removals):
                return live.generation

        self._building.mkdir(exist_ok=True)
        if fresh:
            segments.append(self._write_segment(segment, rows, [refs[name] for name in fresh]))
        working = self._building / "generation"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir()
        write_catalog(working / "photos.sqlite", photos, contents.removals, _drift(contents, order, live))
        write_centroids(working / "clusters.faiss", clustering.centroids)
        self._write_centroid_tokens(working, order, contents, live)
        statuses = [photo.status for photo in photos]
        manifest = Manifest(
            generation=generation_name(number),
            previous=live.generation.name if live.generation else None,
            **vars(self._origin),
            dtype=segments[-1].dtype,
            embedder=self._embedder,
            roots=self._roots,
            counts=Counts(
                photos=len(order),
                files=statuses.count("indexed"),
                duplicates=statuses.count("indexed") - len(order),
                bad=statuses.count("bad"),
                gone=statuses.count("gone"),
                clusters=len(clustering.centroids),
                rows=sum(entry.rows for entry in segments),
            ),
            clusters_asked=clustering.asked if clustering.fresh or before is None else before.clusters_asked,
            next_id=max([live.next_id, *(photo.id + 1 for photo in photos)]),
            created=datetime.now(UTC).replace(microsecond=0),
            software=software_version(),
            segments=tuple(segments),
            files=tuple(FileEntry.of(path) for path in sorted(working.iterdir())),
        )
        write_atomically(working / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())
        final = self._folder.generation(manifest.generation)
        os.replace(working, final)
        sync_folder(self._folder.path)
        self._folder.make_live(manifest.generation)
        return Generation(manifest.generation, final, manifest)

    def _write_segment(self, name: str, rows: Rows, refs: Sequence[RowRef]) -> SegmentEntry:
        working = self._building / "segment"
        shutil.rmtree(working, ignore_errors=True)
        write_segment(working, rows, refs)
        files = tuple(FileEntry.of(path) for path in sorted(working.iterdir()))
        final = self._folder.segment(name)
        # No generation has this number, so nothing uses what a killed build may have left under this name.
        shutil.rmtree(final, ignore_errors=True)
        os.replace(working, final)
        sync_folder(self._folder.segments)
        return SegmentEntry(id=name, rows=len(refs), dtype=PRECISION, files=files)

    def _write_centroid_tokens(
        self, working: Path, order: Mapping[str, int], contents: Contents, live: LiveState
    ) -> None:
        """Recompute the clusters whose photos changed; a cluster that lost all keeps what it had."""
        clustering = contents.clustering
        count = len(clustering.centroids)
        members = members_by_cluster(order, clustering.cluster_of, count)
        old: Centroids | None = None
        if live.generation is not None and not clustering.fresh:
            path = live.generation.path
            pruned = (path / "centroid_tokens.npy").exists()
            old = Centroids(
                map_array(path / "centroid_ret.npy"),
                map_array(path / "centroid_tokens.npy") if pruned else None,
                map_array(path / "centroid_positions.npy") if pruned else None,
            )
        made = Centroids.empty(count, contents.rows)
        for number, names in enumerate(members):
            if old is not None and (not names or names == live.members[number]):
                made.copy(number, old)
            else:
                made.compute(number, contents.rows, [contents.refs[name] for name in names])
        write_array(working / "centroid_ret.npy", made.ret)
        if made.tokens is not None and made.positions is not None:
            write_array(working / "centroid_tokens.npy", made.tokens)
            write_array(working / "centroid_positions.npy", made.positions)


def _located(photo: Photo, place: Mapping[str, RowRef], cluster_of: Mapping[str, int], held: set[str]) -> Photo:
    """The entry with its row filled in; one that is gone keeps its row while the segment stays."""
    if photo.status == "indexed":
        ref = place[photo.hash]
        return replace(photo, cluster=cluster_of[photo.hash], segment=ref.source, row=ref.row)
    if photo.status == "gone" and photo.segment in held:
        return photo
    return replace(photo, cluster=None, segment=None, row=None)


def _drift(contents: Contents, order: Mapping[str, int], live: LiveState) -> Drift | None:
    clustering = contents.clustering
    names = sorted(order, key=order.__getitem__)
    refs, clusters = [contents.refs[name] for name in names], [clustering.cluster_of[name] for name in names]
    now = mean_distance(contents.rows, refs, clusters, clustering.centroids)
    if clustering.fresh:
        return Drift(len(names), now, len(names), now, automatic=clustering.asked is None)
    return replace(live.drift, photos=len(names), distance_now=now) if live.drift is not None else None

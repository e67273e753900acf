"""The end of a build: the new rows' segment, the clusters' centroids, the catalog, the manifest, and the switch."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from indexer.catalog import Photo, write_catalog
from indexer.clusters import Centroids, write_centroids
from indexer.files import sync_folder, write_array, write_atomically
from indexer.gallery import Root
from indexer.generation import Generation
from indexer.location import IndexFolder, generation_name, generation_number
from indexer.manifest import (
    Counts,
    EmbedderEntry,
    FileEntry,
    Manifest,
    RootEntry,
    SegmentEntry,
    software_version,
)
from indexer.plan import LiveState
from indexer.segment import RowRef, Rows, map_array, write_segment
from model import Matcher


@dataclass(frozen=True)
class Clustering:
    """Which cluster every shown photo is in.

    Attributes:
        centroids: (c, e) float32. cluster_of: by content hash. new: contents whose rows go into a new segment.
        fresh: made now, so that no centroid of the live index can stay.
    """

    centroids: npt.NDArray[np.float32]
    cluster_of: Mapping[str, int]
    new: frozenset[str]
    fresh: bool


class GenerationWriter:
    """Writes the generation that follows the live one, in the building folder until it is complete."""

    def __init__(
        self, folder: IndexFolder, key: str, matcher: Matcher, embedder: EmbedderEntry, roots: Sequence[Root]
    ) -> None:
        self._folder = folder
        self._building = folder.building(key)
        self._matcher = matcher
        self._embedder = embedder
        self._roots = roots

    def write(
        self,
        entries: Sequence[Photo],
        rows: Rows,
        refs: Mapping[str, RowRef],
        clustering: Clustering,
        live: LiveState,
        clusters_asked: int | None,
    ) -> Generation:
        """Write everything and make it live; the live generation itself where nothing has changed.

        Args:
            entries: the catalog by id, rows not filled in. refs: each shown content's row among ``rows``.
        """
        number = 1 + (generation_number(live.generation.name) if live.generation else 0)
        order: dict[str, int] = {}
        for photo in entries:
            if photo.status == "indexed":
                order.setdefault(photo.hash, photo.id)
        fresh = sorted(clustering.new, key=lambda name: (clustering.cluster_of[name], order[name]))
        digest = hashlib.sha256("".join(fresh).encode()).hexdigest()[:8]
        segment = f"s{number:06d}-{digest}"
        place = {name: ref for name, ref in refs.items() if name not in clustering.new}
        place |= {name: RowRef(segment, row) for row, name in enumerate(fresh)}
        held = set() if clustering.fresh or live.generation is None else {ref.source for ref in place.values()}
        photos = [_located(photo, place, clustering.cluster_of, held) for photo in entries]
        if live.generation is not None and not clustering.fresh and photos == list(live.photos):
            return live.generation

        segments = [s for s in live.generation.manifest.segments if s.id in held] if live.generation else []
        if fresh:
            segments.append(self._write_segment(segment, rows, [refs[name] for name in fresh]))
        working = self._building / "generation"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir()
        write_catalog(working / "photos.sqlite", photos)
        write_centroids(working / "clusters.faiss", clustering.centroids)
        centroids = self._centroids(order, rows, refs, clustering, live)
        write_array(working / "centroid_ret.npy", centroids.ret)
        if centroids.tokens is not None and centroids.positions is not None:
            write_array(working / "centroid_tokens.npy", centroids.tokens)
            write_array(working / "centroid_positions.npy", centroids.positions)
        names = [(root.name, str(root.path)) for root in self._roots]
        statuses = [photo.status for photo in photos]
        before = live.generation.manifest if live.generation else None
        manifest = Manifest(
            generation=generation_name(number),
            previous=live.generation.name if live.generation else None,
            checkpoint_sha256=self._matcher.checkpoint_sha256,
            preprocessing_fingerprint=self._matcher.preprocessing_fingerprint,
            network=self._matcher.config.name,
            width=self._matcher.config.width,
            tokens=self._matcher.token_count("photo"),
            dtype=_dtype(self._matcher),
            embedder=self._embedder,
            roots=tuple(RootEntry(name=name, path=path) for name, path in names),
            counts=Counts(
                photos=len(order),
                files=statuses.count("indexed"),
                duplicates=statuses.count("indexed") - len(order),
                bad=statuses.count("bad"),
                gone=statuses.count("gone"),
                clusters=len(clustering.centroids),
                rows=sum(entry.rows for entry in segments),
            ),
            clusters_asked=clusters_asked if clustering.fresh or before is None else before.clusters_asked,
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
        os.replace(working, self._folder.segment(name))
        sync_folder(self._folder.segments)
        return SegmentEntry(id=name, rows=len(refs), dtype=_dtype(self._matcher), files=files)

    def _centroids(
        self,
        order: Mapping[str, int],
        rows: Rows,
        refs: Mapping[str, RowRef],
        clustering: Clustering,
        live: LiveState,
    ) -> Centroids:
        """Recompute the clusters whose photos changed; a cluster that lost all keeps what it had."""
        count = len(clustering.centroids)
        members = _members(order, clustering.cluster_of, count)
        before: list[list[str]] = []
        old: Centroids | None = None
        if live.generation is not None and not clustering.fresh:
            path = live.generation.path
            pruned = (path / "centroid_tokens.npy").exists()
            old = Centroids(
                map_array(path / "centroid_ret.npy"),
                map_array(path / "centroid_tokens.npy") if pruned else None,
                map_array(path / "centroid_positions.npy") if pruned else None,
            )
            shown: dict[str, int] = {}
            for photo in live.photos:
                if photo.status == "indexed":
                    shown.setdefault(photo.hash, photo.id)
            before = _members(shown, {name: number for name, (_, number) in live.rows.items()}, count)
        made = Centroids.empty(count, rows)
        for number, names in enumerate(members):
            if old is not None and (not names or names == before[number]):
                made.copy(number, old)
            else:
                made.compute(number, rows, [refs[name] for name in names], self._matcher.config.grid**2)
        return made


def _located(photo: Photo, place: Mapping[str, RowRef], cluster_of: Mapping[str, int], held: set[str]) -> Photo:
    """The entry with its row filled in; one that is gone keeps its row while the segment stays."""
    if photo.status == "indexed":
        ref = place[photo.hash]
        return replace(photo, cluster=cluster_of[photo.hash], segment=ref.source, row=ref.row)
    if photo.status == "gone" and photo.segment in held:
        return photo
    return replace(photo, cluster=None, segment=None, row=None)


def _members(order: Mapping[str, int], cluster_of: Mapping[str, int], count: int) -> list[list[str]]:
    """The contents of every cluster in id order."""
    members: defaultdict[int, list[str]] = defaultdict(list)
    for name in sorted(order, key=order.__getitem__):
        members[cluster_of[name]].append(name)
    return [members[number] for number in range(count)]


def _dtype(matcher: Matcher) -> str:
    return str(matcher.dtype).removeprefix("torch.")

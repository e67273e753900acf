"""The steps of a build on many machines: list, have slices encoded, cluster, have shards written, commit them all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from indexer.building import (
    BadFile,
    FolderListing,
    LiveState,
    Plan,
    Progress,
    Skipped,
    bad_files,
    catalog_entries,
    check_clusters,
    list_gallery,
    usable_ids,
)
from indexer.distributed.clustering import Clusters, cluster_photos
from indexer.distributed.connection import Workers
from indexer.distributed.encoding import SliceDone, SliceWork, encode_slice
from indexer.distributed.live_shards import LiveShards
from indexer.distributed.partition import check_ids, partition, place_cells, write_plan
from indexer.distributed.setup import Setup
from indexer.distributed.shard_writing import ShardWork, write_shard
from indexer.distributed.slices import Slices
from indexer.errors import BadInvocation
from indexer.store import (
    FileKey,
    GalleryFile,
    IndexedContent,
    Root,
    SegmentRow,
    ShardEntry,
    ShardsFolder,
    ShardsManifest,
    default_clusters,
    write_centroids,
)

# A work whose machines end again and again is given up in the end, where Ray is asked to do it again so often.
_RETRIES = 20


@dataclass(frozen=True)
class ShardsReport:
    """The outcome of a build on many machines.

    Attributes:
        changed: False where nothing had to be written.
        photos, files, duplicates: of all shards, as in a manifest's counts. clusters: all of them.
        encoded: photos that the network encoded in this run; one that is in two slices is counted twice.
        gone: files that were there at the last build.
        bad: files that could not be used, by the paths that users see.
        unlisted: folders that could not be read. What was known of them stays.
        skipped: what was passed over, because it is no image.
        embedder: what the clusters were made by.
        shards: what is committed now. workers: how many worked at once, at most.
        seconds: how long it took, from when the cluster was there.
        index: the folder of the shards.
    """

    changed: bool
    photos: int
    files: int
    duplicates: int
    clusters: int
    encoded: int
    gone: int
    bad: tuple[BadFile, ...]
    unlisted: tuple[BadFile, ...]
    skipped: Skipped
    embedder: str
    shards: tuple[ShardEntry, ...]
    workers: int
    seconds: float
    index: Path


@dataclass(frozen=True)
class ShardsDecision:
    """One build of shards, decided before any photo is read.

    Attributes:
        live: the shards that are there; None where there are none. state: what they hold.
        roots: the gallery's. setup: what workers are told. key: names the folder in which the build works.
        shards: how many to write. clusters: how many the user asked for; None for about sqrt(photos).
        anew: whether the shards are written even if no photo has changed.
        slice_files: how many files a slice has.
    """

    live: LiveShards | None
    state: LiveState
    roots: tuple[Root, ...]
    setup: Setup
    key: str
    shards: int
    clusters: int | None
    anew: bool
    slice_files: int


class ShardsBuilder:
    """Does what was decided, in a folder whose lock the caller holds."""

    def __init__(self, folder: ShardsFolder, decision: ShardsDecision, workers: Workers, progress: Progress) -> None:
        self._folder = folder
        self._decision = decision
        self._state = decision.state
        self._setup = decision.setup
        self._slices = Slices(decision.setup.slices, decision.setup.run)
        self._workers = workers
        self._progress = progress
        self._encoded = 0

    def run(self) -> ShardsReport:
        """Do it, and keep the progress up to date. An error leaves the shards as they were."""
        with self._progress.of_build(self._folder.progress):
            return self._run()

    def _run(self) -> ShardsReport:
        started = time.monotonic()
        decision = self._decision
        self._progress.start("reading")
        listing = list_gallery(decision.roots, self._folder.path, self._state.removals, self._state.files)
        if not listing.unlisted:
            check_clusters(decision.clusters, len(listing.files))
            self._check_shards(len(listing.files), "photos")
        entries, staged = self._stage(listing)
        check_ids(max(file.id for file in entries) + 1)
        ids = usable_ids(entries, decision.roots, decision.clusters)
        self._check_shards(len(ids), "photos")
        live, changed = decision.live, True
        if live is not None and not decision.anew and self._unchanged(entries, live):
            manifest, changed = live.manifest, False
        else:
            manifest = self._write(entries, ids, staged)
            self._folder.commit(manifest)
        self._folder.clean(manifest, None)
        return self._report(manifest, entries, listing, changed, time.monotonic() - started)

    def _stage(self, listing: FolderListing) -> tuple[list[GalleryFile], dict[str, SegmentRow]]:
        """The next catalog, without rows; and the rows of contents that are in slices."""
        self._slices.forget_attempts()
        records, rows = self._read_slices()
        known = set(self._state.contents) | rows.keys()
        plan = Plan.make(listing.files, self._state, records, known)
        self._progress.start("encoding", len(plan.work))
        self._progress.advance(0, sum(record.reason is not None for record in plan.settled.values()))
        if plan.work:
            self._workers.each(encode_slice, self._cut(plan.work), self._count, retries=-1, on_gpu=True)
            records, rows = self._read_slices()
        entries = catalog_entries(listing, {**records, **plan.settled}, self._state)
        return entries, rows

    def _cut(self, files: Sequence[GalleryFile]) -> Iterator[SliceWork]:
        first = self._slices.next_number()
        size = self._decision.slice_files
        for number, start in enumerate(range(0, len(files), size), first):
            yield SliceWork(self._setup, number, tuple(files[start : start + size]))

    def _count(self, done: SliceDone) -> None:
        self._encoded += done.rows
        self._progress.advance(done.files, done.bad)

    def _read_slices(self) -> tuple[dict[FileKey, GalleryFile], dict[str, SegmentRow]]:
        """What became of the files of all slices, the last that was seen of each; and where contents have a row."""
        records: dict[FileKey, GalleryFile] = {}
        rows: dict[str, SegmentRow] = {}
        for name in self._slices.names():
            found = self._slices.records(name)
            records.update({record.key: record for record in found.files})
            for row, content in enumerate(found.contents):
                rows.setdefault(content, SegmentRow(name, row))
        return records, rows

    def _unchanged(self, entries: Sequence[GalleryFile], live: LiveShards) -> bool:
        """Whether the next shards would hold what the live ones do."""
        before = live.generations[0].manifest
        roots = tuple((root.name, str(root.path)) for root in self._decision.roots)
        same_roots = roots == tuple((root.name, root.path) for root in before.roots)
        known = [replace(file, indexed=None) for file in self._state.files]
        now = [replace(file, indexed=None) for file in entries]
        return same_roots and len(live.generations) == self._decision.shards and known == now

    def _write(
        self, entries: Sequence[GalleryFile], ids: Mapping[str, int], staged: Mapping[str, SegmentRow]
    ) -> ShardsManifest:
        """Have all shards written, and say what joins them. None of them is live yet."""
        decision = self._decision
        contents = sorted(ids, key=ids.__getitem__)
        refs = [self._row(content, staged) for content in contents]
        clusters = self._cluster(refs)
        self._check_shards(len(clusters.centroids), "clusters: a shard holds whole ones")
        of_photo = zip(contents, refs, clusters.of_photo.tolist(), strict=True)
        indexed = {content: IndexedContent(ref, cluster) for content, ref, cluster in of_photo}
        next_id = max(self._state.next_id, *(file.id + 1 for file in entries))
        path = self._slices.folder / "clusters.faiss"
        write_centroids(path, clusters.centroids)
        self._progress.start("writing", len(contents))
        written: list[ShardEntry] = []

        def done(entry: ShardEntry) -> None:
            written.append(entry)
            self._progress.advance(entry.photos)

        cells = place_cells(clusters.centroids, np.bincount(clusters.of_photo), decision.shards)
        shard_of = dict(zip(contents, cells[clusters.of_photo].tolist(), strict=True))
        parts = partition(entries, shard_of, decision.shards)
        works = (
            self._plan_shard(number, part, indexed, path, len(clusters.centroids), next_id)
            for number, part in enumerate(parts)
        )
        self._workers.each(write_shard, works, done, retries=_RETRIES)
        return ShardsManifest(
            photo_sha256=self._setup.origin.photo_sha256,
            preprocessing_fingerprint=self._setup.origin.preprocessing_fingerprint,
            clusters=len(clusters.centroids),
            clusters_asked=decision.clusters,
            next_id=next_id,
            created=datetime.now(UTC).replace(microsecond=0),
            software=self._setup.software,
            shards=tuple(sorted(written, key=lambda entry: entry.folder)),
        )

    def _row(self, content: str, staged: Mapping[str, SegmentRow]) -> SegmentRow:
        indexed = self._state.contents.get(content)
        return staged[content] if indexed is None else indexed.row

    def _cluster(self, refs: Sequence[SegmentRow]) -> Clusters:
        self._progress.start("clustering")
        asked = self._decision.clusters
        return cluster_photos(
            self._workers,
            self._folder.path,
            self._slices.folder,
            refs,
            # A shard holds whole clusters, at least one.
            max(default_clusters(len(refs)), self._decision.shards) if asked is None else asked,
            self._setup.token,
            self._progress,
        )

    def _plan_shard(
        self,
        number: int,
        files: Sequence[GalleryFile],
        indexed: Mapping[str, IndexedContent],
        centroids: Path,
        clusters: int,
        next_id: int,
    ) -> ShardWork:
        decision = self._decision
        plan = self._slices.folder / f"plan-{number:04d}.sqlite"
        write_plan(plan, files, indexed, self._state.removals)
        live = decision.live
        known = live is not None and number < len(live.generations)
        return ShardWork(
            shards=self._folder.path,
            slices=self._slices.folder,
            number=number,
            plan=plan,
            live=live.generations[number].name if live is not None and known else None,
            centroids=centroids,
            clusters=clusters,
            asked=decision.clusters,
            key=decision.key,
            origin=self._setup.origin,
            embedder=self._setup.embedder,
            roots=decision.roots,
            next_id=next_id,
        )

    def _report(
        self,
        manifest: ShardsManifest,
        entries: Sequence[GalleryFile],
        listing: FolderListing,
        changed: bool,
        seconds: float,
    ) -> ShardsReport:
        files = sum(shard.files for shard in manifest.shards)
        return ShardsReport(
            changed=changed,
            photos=manifest.photos,
            files=files,
            duplicates=files - manifest.photos,
            clusters=manifest.clusters,
            encoded=self._encoded,
            gone=self._state.gone_in(entries),
            bad=bad_files(entries, [root.name for root in self._decision.roots]),
            unlisted=listing.unlisted,
            skipped=listing.skipped,
            embedder=self._setup.embedder.description,
            shards=manifest.shards,
            workers=self._workers.count,
            seconds=seconds,
            index=self._folder.path,
        )

    def _check_shards(self, most: int, what: str) -> None:
        """Raises BadInvocation where there are more shards than can have something."""
        if self._decision.shards > most:
            raise BadInvocation(f"{self._decision.shards} shards are more than the {most} {what}; give --shards fewer.")

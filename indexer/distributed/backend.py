"""Builds shards of whole, neighbouring clusters by workers of a Ray cluster, so that a search asks few shards."""

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, islice, zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sketch_search import model
from sketch_search.indexer.building.builder import BuildReport, Written, run_plan
from sketch_search.indexer.building.database import DATABASE_FILE, BuildDatabase
from sketch_search.indexer.building.plan import (
    BuildPlan,
    BuildRequest,
    Current,
    check_network,
    check_shards,
    plan_build,
)
from sketch_search.indexer.building.staging import Progress
from sketch_search.indexer.building.writer import Clustering, GenerationDraft, GenerationWriter
from sketch_search.indexer.distributed.workers import TOKEN, Setup, Workers, check_address, connected
from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.catalog import GalleryFile
from sketch_search.indexer.store.generation import Generation, keep_only, open_generation
from sketch_search.indexer.store.location import SLICES, FileKey, refuse_if_unwritable
from sketch_search.indexer.store.reader import MAX_ID, MAX_SHARDS, ShardEntry, ShardsFolder, ShardsManifest
from sketch_search.indexer.store.rows import PhotoArrays, SegmentReader, SegmentRows, with_boxes
from sketch_search.model.engine import Floats, Numbers, default_checkpoint
from sketch_search.model.search.clusters import train_centroids
from sketch_search.model.terminal import installed_version

# Files that a worker encodes at a time, whose rows are kept all or not at all: some 5 MB of rows of the default
# network, and less than a minute of a worker's time.
SLICE = 1024
# A shard takes clusters until it has this many times its share of the photos, and clusters are placed again so often.
FULL, PLACINGS = 1.05, 10


@dataclass(frozen=True)
class Machines:
    """A Ray cluster ("auto", "local", HOST:PORT), its workers' device and most number, and the checkpoint's file."""

    address: str
    device: str = "auto"
    workers: int | None = None
    weights: str | None = None


def build_shards(
    index: Path, request: BuildRequest, machines: Machines, progress: Progress | None = None
) -> BuildReport:
    """Builds or updates shards; photos and index must be at one path on all machines. Clusters are made anew.

    Raises BadInvocation; IndexBusy; IndexRefused for damaged shards; ModelError without the checkpoint.
    """
    if request.shards is not None and not 1 <= request.shards <= MAX_SHARDS:
        raise BadInvocation(f"the number of shards must be from 1 to {MAX_SHARDS:,}.")
    check_address(machines.address)
    folder, progress = ShardsFolder(index), progress or Progress()
    # Checked before anything slow, and again under the lock, since the shards may have changed.
    request.roots(folder.path, _read_current(folder)[1].manifest)
    with folder.writing(), connected(machines.address):
        workers = Workers(machines.device, machines.workers)
        matcher = model.load(default_checkpoint(machines.weights), "cpu")
        check_network(matcher)
        manifest, current = _read_current(folder)
        if manifest is not None:
            folder.settle(manifest)
        plan, shards_before = plan_build(request, current, matcher, folder.path), len(current.catalogs)
        if not plan.current.reusable:
            raise BadInvocation(
                f"{folder.path} holds shards of another checkpoint or embedder, or with other tokens; name another "
                "folder with --index, or delete that one."
            )
        shards = request.shards or shards_before or 1
        rewrite = plan.recluster or shards != shards_before
        plan = replace(plan, recluster=True, rewrite=rewrite, shards=shards)
        with progress.of_build(folder.progress):
            backend = RayBackend(folder, plan, manifest, workers, machines, matcher, progress)
            with closing(backend.database):
                return run_plan(plan, backend, progress)


def _read_current(folder: ShardsFolder) -> tuple[ShardsManifest | None, Current]:
    """Reads the shards of the last committed build, if any, and their state. Raises IndexRefused if one is damaged."""
    if (manifest := folder.manifest()) is None:
        return None, Current()
    catalogs = {
        f"{shard.folder}/{shard.generation}/": open_generation(folder.shard(number), shard.generation)
        for number, shard in enumerate(manifest.shards)
    }
    # All shards have the same network and folders.
    first = Current.of(next(iter(catalogs.values())))
    return manifest, replace(first, catalogs=catalogs, next_id=manifest.next_id, clusters=manifest.clusters)


class RayBackend:
    """Encodes by workers, to slices with a database each, and writes shards from these. The caller holds the lock."""

    def __init__(
        self,
        folder: ShardsFolder,
        plan: BuildPlan,
        manifest: ShardsManifest | None,
        workers: Workers,
        machines: Machines,
        matcher: model.Matcher,
        progress: Progress,
    ) -> None:
        self.matcher = matcher
        self.path, self.workers, self.incomplete = folder.path, workers.count, list[FileKey]()
        self._folder, self._plan, self._manifest = folder, plan, manifest
        self._ray, self._progress = workers, progress
        folder.clean_shards(self._manifest, plan.key)
        self._slices = folder.path / f"{SLICES}{plan.key}"
        self._setup = Setup(
            folder=self._slices,
            token=uuid.uuid4().hex,
            settings=plan.settings,
            folders=tuple(root.folder for root in plan.roots if root.folder.is_there()),
            weights=machines.weights,
            resources=workers.resources,
            batch=plan.request.batch,
            max_pixels=plan.request.max_pixels,
            software=installed_version(),
        )
        with refuse_if_unwritable(self.path):
            self._slices.mkdir(exist_ok=True)
            # What a stopped build has read is in the slices.
            (self._slices / DATABASE_FILE).unlink(missing_ok=True)
            (self._slices / f"{TOKEN}-{self._setup.token}").touch()
        self.database, self._taken = BuildDatabase(self._slices / DATABASE_FILE), set[Path]()
        self._take_slices()

    def _take_slices(self) -> None:
        # For each file the newest record counts.
        for path in sorted({*self._slices.glob("slice-*")} - self._taken):
            self.database.take_slice(path)
            self._taken.add(path)

    def encode(self, last: int) -> int:
        for left in self._slices.glob("attempt-*"):
            # A worker of a build that was killed may still be writing.
            shutil.rmtree(left, ignore_errors=True)
        self._progress.start("encoding", self.database.count_unread(last))
        encoded = 0
        with closing(self._ray.encode(self._cut(last))) as parts:
            for read, bad, rows in parts:
                encoded += rows
                self._progress.advance(read, bad)
        self._take_slices()
        return encoded

    def _cut(self, last: int) -> Iterator[tuple[Setup, int, Sequence[GalleryFile]]]:
        existing = (int(path.name.split("-")[1]) for path in self._slices.glob("slice-*"))
        files, numbers = self.database.unread(last), count(1 + max(existing, default=-1))
        while part := tuple(islice(files, SLICE)):
            yield self._setup, next(numbers), part

    def sources(self, rows: SegmentRows) -> Mapping[str, PhotoArrays]:
        """Opens the arrays of slices, and of segments such as "shard-0003/g000002/s000001-0a1b2c3d"."""
        names = {rows.names[source] for source in np.unique(rows.sources).tolist()}
        opened = dict[str, PhotoArrays]()
        for beginning, generation in self._plan.current.catalogs.items():
            others = [name for name in generation.manifest.segment_sizes if f"{beginning}{name}" not in names]
            kept = generation.open_rows(others, self._plan.settings.detector)
            opened |= {f"{beginning}{name}": arrays for name, arrays in kept.items()}
        for name in names:
            if name not in opened:
                with closing(BuildDatabase(self._slices / name / DATABASE_FILE, shard=0)) as database:
                    opened[name] = database.staged_rows()
        return opened

    def write(self, draft: GenerationDraft | None) -> Written:
        if draft is not None:
            self._manifest = self._write(draft)
            self._folder.commit(self._manifest)
        assert self._manifest is not None  # the first build has a draft
        self.database.close()
        self._folder.clean_shards(self._manifest, None)
        shards = self._manifest.shards
        generation = "+".join(sorted({shard.generation for shard in shards}))
        photos, files = sum(shard.photos for shard in shards), sum(shard.files for shard in shards)
        return Written(generation, photos, files, self._manifest.clusters, shards)

    def _write(self, draft: GenerationDraft) -> ShardsManifest:
        """Writes all shards, and returns their common manifest. None of them is current yet."""
        plan, clustering = self._plan, draft.clustering
        clusters = len(clustering.centroids)
        next_id = max(plan.current.next_id, self.database.last_id() + 1)
        check_ids(next_id)
        check_shards(plan.shards, clusters, "clusters, which are not split among shards")
        self._progress.start("writing", len(draft.photos))
        sizes = np.bincount(clustering.clusters, minlength=clusters)
        shard_of = place_clusters(clustering.centroids, sizes, plan.shards)
        self.database.deal(draft.photos.ids, clustering.clusters, shard_of)
        self.database.close()
        current = [*plan.current.catalogs.values()][: plan.shards]
        shards = [
            self._write_shard(number, draft, generation, next_id)
            for number, generation in zip_longest(range(plan.shards), current)
        ]
        return ShardsManifest(clusters=clusters, next_id=next_id, shards=tuple(shards))

    def _write_shard(self, number: int, draft: GenerationDraft, current: Generation | None, next_id: int) -> ShardEntry:
        """Writes the next generation of a shard. next_id: the lowest new id of all shards."""
        folder = self._folder.make_shard(number)
        # Remains of an earlier attempt are deleted, so that all attempts write a generation of the same name.
        keep_only(folder, current, building=set())
        with closing(BuildDatabase(self._slices / DATABASE_FILE, shard=number)) as database:
            photos = database.photos()
            # The shard has only its own clusters, in the same order as among all.
            present, clusters = np.unique(photos.clusters, return_inverse=True)
            sources = self.sources(photos.rows)
            # Boxes that were found in photos of before are in the build's database.
            reader = SegmentReader({name: with_boxes(sources[name], database.boxes_of(name)) for name in sources})
            to_write = np.ones(len(photos), np.bool_)
            clustering = Clustering(draft.clustering.centroids[present], clusters)
            part = GenerationDraft(draft.settings, draft.removals, database, photos, reader, to_write, clustering)
            written = GenerationWriter(folder, self._plan.key, part, current, next_id).write(make_current=False)
        self._progress.advance(len(photos))
        counts = written.manifest.counts.model_dump(include={"photos", "files", "bad", "clusters"})
        return ShardEntry(folder=folder.path.name, generation=written.name, **counts)


def check_ids(next_id: int) -> None:
    """Raises BadInvocation if ids are too high for shards. next_id: the next new id."""
    if next_id - 1 > MAX_ID:
        raise BadInvocation(
            f"the file ids go up to {next_id - 1:,}, but an index in shards holds ids only up to {MAX_ID:,}; build "
            "it anew in another folder, where they begin at 1."
        )


def place_clusters(centroids: Floats, sizes: Numbers, shards: int) -> Numbers:
    """Assigns clusters to shards (c,), at least one to each, by k-means over centroids (c, e) with limited room."""
    points = centroids.astype(np.float64)
    middles = train_centroids(np.asarray(centroids, np.float32), shards).astype(np.float64)
    room = FULL * sizes.sum() / shards
    for _ in range(PLACINGS):
        distances = (points**2).sum(axis=1)[:, None] - 2 * points @ middles.T + (middles**2).sum(axis=1)
        placed = _place(distances, sizes, room)
        middles = np.stack([points[placed == shard].mean(axis=0) for shard in range(shards)])
    return placed


def _place(distances: npt.NDArray[np.float64], sizes: Numbers, room: float) -> Numbers:
    """Assigns each cluster to the nearest shard with room; those with most to lose choose first. distances: (c, s)."""
    clusters, shards = distances.shape
    order = np.argsort(distances, axis=1, kind="stable")
    nearest = np.take_along_axis(distances, order[:, :2], axis=1)
    photos, counts, placed = np.zeros(shards), np.zeros(shards, np.int64), np.zeros(clusters, np.int64)
    for left, cluster in zip(range(clusters, 0, -1), np.argsort(nearest[:, 0] - nearest[:, -1]).tolist(), strict=True):
        able = photos + sizes[cluster] <= room
        if (counts == 0).sum() >= left:
            able = counts == 0
        fitting = order[cluster][able[order[cluster]]]
        shard = int(fitting[0] if len(fitting) else photos.argmin())
        placed[cluster] = shard
        photos[shard] += sizes[cluster]
        counts[shard] += 1
    return placed

"""Builds on many machines: Ray's workers encode the photos and write the shards, one process plans and commits."""

import logging
import os
import secrets
import shutil
import socket
import sqlite3
import sys
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import chdir, closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import count, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

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
    find_embedder,
    plan_build,
)
from sketch_search.indexer.building.staging import MAX_DECODERS, Progress, Stager
from sketch_search.indexer.building.writer import Clustering, GenerationDraft, GenerationWriter
from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.catalog import GalleryFile
from sketch_search.indexer.store.files import sync_folder
from sketch_search.indexer.store.generation import (
    Generation,
    IndexSettings,
    NetworkIdentity,
    keep_only,
    open_generation,
)
from sketch_search.indexer.store.location import SLICES, FileKey, refuse_if_unwritable
from sketch_search.indexer.store.reader import MAX_ID, MAX_SHARDS, ShardEntry, ShardsFolder, ShardsManifest
from sketch_search.indexer.store.remote import Folder
from sketch_search.indexer.store.rows import PhotoArrays, SegmentReader, SegmentRows, with_boxes
from sketch_search.model.engine import Floats, Numbers, default_checkpoint, set_threads
from sketch_search.model.errors import UserError
from sketch_search.model.search.clusters import train_centroids
from sketch_search.model.terminal import installed_version

if TYPE_CHECKING:
    from sketch_search.model.torch import ClipEmbedder


# Seconds for the first answer of a machine.
_PATIENCE = 10
# Tasks sent to each worker, including the one that it is running.
_AHEAD = 2
# Ray repeats a task this often if its worker has ended. After that, the build fails.
_RETRIES = 20
# Bytes for objects that Ray passes between processes. All arrays go through files.
_OBJECTS = 200 * 2**20


@dataclass(frozen=True)
class Resources:
    """The resources of one worker, and the number of workers that fit."""

    device: str
    cpus: int
    gpus: int
    workers: int

    @staticmethod
    def of(nodes: Sequence[Mapping[str, float]], device: str) -> "Resources":
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        with_gpu = [(int(node.get("GPU", 0)), int(node.get("CPU", 0))) for node in nodes]
        with_gpu = [(gpus, cpus) for gpus, cpus in with_gpu if gpus and cpus]
        if device == "cuda" or (device == "auto" and with_gpu):
            if not with_gpu:
                raise BadInvocation(
                    "no machine of the Ray cluster has a free GPU and a CPU beside it; start one with `ray start "
                    "--num-gpus`, or use --device cpu."
                )
            # Every worker gets the same share, since Ray places workers wherever they fit.
            share = min(max(1, cpus // gpus) for gpus, cpus in with_gpu)
            return Resources("cuda", min(share, MAX_DECODERS), 1, sum(gpus for gpus, _ in with_gpu))
        if device not in ("auto", "cpu"):
            raise BadInvocation(f"device {device!r} cannot be used with --ray; use auto, cpu or cuda.")
        if not sum(cpus):
            raise BadInvocation(
                "no machine of the Ray cluster has a CPU for a worker; start one with `ray start --num-cpus`."
            )
        return Resources("cpu", 1, 0, sum(cpus))


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster while the block runs, unless this process is connected. Raises BadInvocation.

    address: "auto" for this machine's or RAY_ADDRESS; "local" for one that ends with the block; or HOST:PORT.
    """
    # Ray would send usage statistics to its makers. The user can still turn that on.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # `ray start` requires a token if this user has one, but Ray's own drivers send it only if this is set.
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # A local cluster listens only on the loopback address: otherwise anybody could read its metrics.
    # Ray's option for that is named after the systems where it is the default, and is read when Ray is imported.
    # Other accounts of this machine have no token. Ray itself would write one into the user's home, or require none.
    if address == "local" and "ray" not in sys.modules:
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token" and not _has_token():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = {"include_dashboard": False, "object_store_memory": _OBJECTS} if address == "local" else {}
    try:
        # Workers look for modules in the current folder first, which may be a checkout of another version.
        with chdir(Path(__file__).parents[__name__.count(".")]):
            ray.init(address=address, **quiet, **local)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise BadInvocation(f"no Ray cluster can be reached at {address}: {_first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or file.is_file()


def check_address(address: str) -> None:
    """Raises BadInvocation at once without Ray or a listening cluster; Ray itself would try for minutes."""
    if find_spec("ray") is None:
        raise BadInvocation("--ray needs Ray, which is not installed; run `pip install 'sketch-search[ray]'`.")
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise BadInvocation(f"--ray must be auto, local, or HOST:PORT of a cluster's head, not {address!r}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except OSError as error:
        raise BadInvocation(
            f"no Ray cluster can be reached at {address}: {error.strerror or error}; name HOST:PORT of its head, as "
            "`ray start --head` prints it."
        ) from error


class Workers:
    """Workers of the connected cluster, ``count`` at once. Raises BadInvocation without room for ``most``."""

    def __init__(self, device: str, most: int | None = None) -> None:
        import ray

        self.resources = Resources.of([node["Resources"] for node in ray.nodes() if node["Alive"]], device)
        if most is not None and not 1 <= most <= self.resources.workers:
            raise BadInvocation(
                f"the Ray cluster has room for {self.resources.workers} workers, not for {most}; give --workers "
                "from 1 to that, or add machines to it."
            )
        self.count = most or self.resources.workers
        # Some tasks wait for the first free worker, so that it is not idle while this process handles results.
        self._at_once = most or _AHEAD * self.resources.workers

    def encode(self, slices: Iterator[tuple["Setup", int, Sequence[GalleryFile]]]) -> Generator[tuple[int, int, int]]:
        """Runs ``encode_slice`` with each of these, and yields the results in any order; closing cancels the rest.

        Raises as ``encode_slice`` does; BadInvocation if the cluster cannot do it.
        """
        import ray

        options = {"num_cpus": self.resources.cpus}
        if self.resources.gpus:
            # Without max_calls a worker with a GPU would end, and with it the loaded network, after each task.
            options |= {"num_gpus": self.resources.gpus, "max_calls": 0}
        # Spread, because a worker mainly needs the processors and the disk of its machine.
        remote = ray.remote(max_retries=_RETRIES, scheduling_strategy="SPREAD", **options)(encode_slice)
        waiting: list[object] = []
        try:
            while True:
                # They are sent one by one, so that earlier ones are cancelled if making the next one fails.
                for part in islice(slices, self._at_once - len(waiting)):
                    waiting.append(remote.remote(*part))
                if not waiting:
                    return
                ended, waiting = ray.wait(waiting, num_returns=1)
                yield from ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError | OSError | sqlite3.Error):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            raise BadInvocation(
                f"the Ray cluster failed ({_first_line(error)}); run the same command again: it continues from here."
            ) from error
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


TOKEN = "token"


@dataclass(frozen=True)
class Setup:
    """The parameters of a build for every worker.

    folder: of its slices. token: in the name of a file there, which proves the shared storage, and in those of slices.
    folders: those of the gallery that exist.
    """

    folder: Path
    token: str
    settings: IndexSettings
    folders: tuple[Folder, ...]
    weights: str | None
    resources: Resources
    batch: int
    max_pixels: int
    software: str


@lru_cache(maxsize=1)
def open_networks(setup: Setup) -> "tuple[model.Matcher, ClipEmbedder | None]":
    """Loads the networks, once in a build. Raises BadInvocation if storage, checkpoint or version differ."""
    node = f"the worker on {socket.gethostname()}"
    shared = "photos and index must be on storage that all machines share, at the same path on each."
    if not (setup.folder / f"{TOKEN}-{setup.token}").exists():
        raise BadInvocation(f"{node} cannot see {setup.folder.parent}; {shared}")
    for root in setup.folders:
        if not root.is_there():
            advice = "give each machine its credentials, as docs/using.md describes." if root.remote else shared
            raise BadInvocation(f"{node} cannot see {root}; {advice}")
    if (version := installed_version()) != setup.software:
        raise BadInvocation(
            f"{node} has version {version} of sketch-search, not {setup.software}; install the same version everywhere."
        )
    # The server imports this module, and needs no FAISS to begin.
    import faiss

    set_threads(setup.resources.cpus)
    faiss.omp_set_num_threads(setup.resources.cpus)
    try:
        matcher = model.load(default_checkpoint(setup.weights), setup.resources.device)
    except UserError as error:
        raise BadInvocation(f"{node} cannot start: {error}") from error
    settings = setup.settings
    embedder = find_embedder(settings.embedder.spec, matcher.device)
    same = NetworkIdentity.of(matcher).with_tokens(settings.tokens) == settings.identity
    if not same or not embedder.entry.same(settings.embedder):
        raise BadInvocation(f"{node} has different networks than this machine; put the same files at the same paths.")
    return matcher, embedder.load()


def encode_slice(setup: Setup, number: int, files: Sequence[GalleryFile]) -> tuple[int, int, int]:
    """Encodes a slice to the shared storage. Returns how many files it has, bad files, and rows.

    A slice, files that were listed together, gets its name when it is complete, also by a worker that is killed then.
    """
    final = setup.folder / f"slice-{number:09}-{setup.token[:8]}"
    # A worker may end after writing its slice but before reporting it.
    if not final.is_dir():
        networks, attempt = open_networks(setup), setup.folder / f"attempt-{final.name}-{uuid.uuid4().hex}"
        with closing(BuildDatabase(attempt / DATABASE_FILE)) as database:
            Stager(setup.settings, *networks, database, setup.max_pixels).stage(files, setup.batch, Progress())
        with refuse_if_unwritable(setup.folder):
            try:
                os.rename(attempt, final)
            except OSError:
                # Another worker may have done the same slice first.
                if not final.is_dir():
                    raise
                shutil.rmtree(attempt, ignore_errors=True)
            sync_folder(setup.folder)
    with closing(BuildDatabase(final / DATABASE_FILE, shard=0)) as database:
        return *database.counts_read(), database.staged


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

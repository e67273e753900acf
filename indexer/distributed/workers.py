"""The tasks of a build's workers: they encode slices of the photos, assign rows to clusters, and write shards.

A worker checks that it reaches the shared storage and has the same networks. A slice, files that were listed
together, gets its name when it is complete, so all slices are, even of killed workers; its name has the build's run.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sketch_search import model
from sketch_search.indexer.building.database import DATABASE_FILE, BuildDatabase
from sketch_search.indexer.building.progress import Progress
from sketch_search.indexer.building.staging import Stager
from sketch_search.indexer.building.writer import Clustering, GenerationDraft, GenerationWriter
from sketch_search.indexer.embedding import find_embedder
from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.catalog import GalleryFile, Removals
from sketch_search.indexer.store.files import sync_folder
from sketch_search.indexer.store.folders import Folder
from sketch_search.indexer.store.generation import NetworkIdentity, Settings, keep_only, open_generation
from sketch_search.indexer.store.location import IndexFolder, refuse_if_unwritable
from sketch_search.indexer.store.rows import PhotoArrays, SegmentReader, SegmentRows, map_array, nearest, with_boxes
from sketch_search.indexer.store.shards import ShardEntry, ShardsFolder, shard_name
from sketch_search.model.engine import default_checkpoint, set_threads
from sketch_search.model.errors import UserError
from sketch_search.model.terminal import installed_version

if TYPE_CHECKING:
    from sketch_search.model.training.network import ClipEmbedder

TOKEN = "token"
# Seconds to wait for the lock of a shard. A worker that is assumed to be lost may still be writing, and notices within
# a few seconds that it is disconnected.
_WAIT = 120
# Each source has up to five arrays mapped into memory, and Linux lets a process have 65,530 of them.
_MAX_OPEN = 8_000


class Sources(Mapping[str, PhotoArrays]):
    """Opens sources of rows by name: slices, and segments such as "shard-0003/g000002/s000001-0a1b2c3d"."""

    def __init__(self, shards: Path, slices: Path, names: Iterable[str], detector: str | None) -> None:
        self._shards, self._slices, self._detector = shards, slices, detector
        self._names = tuple(sorted(set(names)))
        self._open = lru_cache(maxsize=_MAX_OPEN)(self._open_now)

    def __getitem__(self, name: str) -> PhotoArrays:
        return self._open(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _open_now(self, name: str) -> PhotoArrays:
        if "/" not in name:
            with closing(BuildDatabase(self._slices / name / DATABASE_FILE, shard=0)) as database:
                return database.staged_rows()
        shard, generation, segment = name.split("/")
        folder = IndexFolder(self._shards / shard)
        opened = open_generation(folder, generation)
        others = [entry.id for entry in opened.manifest.segments if entry.id != segment]
        return opened.open_rows(others, self._detector)[segment]


@dataclass(frozen=True)
class Setup:
    """The parameters of a build for every worker.

    key: the name of its working folder. token: the content of a file there, which proves the shared storage.
    there: the existing folders of the gallery.
    """

    shards: Path
    key: str
    token: str
    settings: Settings
    there: tuple[Folder, ...]
    weights: str | None
    device: str
    threads: int
    batch: int
    software: str

    @property
    def folder(self) -> Path:
        return ShardsFolder(self.shards).slices(self.key)

    @property
    def database(self) -> Path:
        """The file of the build's database. A worker of a build that was killed does not find the next build's."""
        return self.folder / f"database-{self.token[:8]}.sqlite"


@lru_cache(maxsize=1)
def open_networks(setup: Setup) -> "tuple[model.Matcher, ClipEmbedder | None]":
    """Loads the networks, once in a build. Raises BadInvocation if storage, checkpoint or version differ."""
    _check_storage(setup)
    here = _here()
    for root in setup.there:
        if not root.is_there():
            advice = "give each machine its credentials, as docs/using.md describes." if root.remote else _SHARED
            raise BadInvocation(f"{here} cannot see {root}; {advice}")
    if (version := installed_version()) != setup.software:
        raise BadInvocation(
            f"{here} has version {version} of sketch-search, not {setup.software}; install the same version everywhere."
        )
    # The server imports this module, and needs no FAISS to begin.
    import faiss

    set_threads(setup.threads)
    faiss.omp_set_num_threads(setup.threads)
    try:
        matcher = model.load(default_checkpoint(setup.weights), setup.device)
    except UserError as error:
        raise BadInvocation(f"{here} cannot start: {error}") from error
    settings = setup.settings
    embedder = find_embedder(settings.embedder.spec, matcher.device)
    same = NetworkIdentity.of(matcher).with_tokens(settings.tokens) == settings.identity
    if not same or not embedder.entry.same(settings.embedder):
        raise BadInvocation(f"{here} has different networks than this machine; put the same files at the same paths.")
    return matcher, embedder.load()


def _here() -> str:
    return f"the worker on {socket.gethostname()}"


_SHARED = "photos and index must be on storage that all machines share, at the same path on each."


def _check_storage(setup: Setup) -> None:
    try:
        token = (setup.folder / TOKEN).read_text()
    except OSError:
        token = ""
    if token != setup.token:
        raise BadInvocation(f"{_here()} cannot see {setup.shards}; {_SHARED}")


def encode_slice(setup: Setup, number: int, files: Sequence[GalleryFile]) -> tuple[int, int, int]:
    """Encodes a slice to the shared storage. Returns how many files it has, bad files, and rows."""
    final = setup.folder / f"slice-{number:09}-{setup.token[:8]}"
    # A worker may end after writing its slice but before reporting it.
    if not final.is_dir():
        networks, attempt = open_networks(setup), setup.folder / f"attempt-{final.name}-{uuid.uuid4().hex}"
        with closing(BuildDatabase(attempt / DATABASE_FILE)) as database:
            Stager(setup.settings, *networks, database).stage(files, setup.batch, Progress())
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


def assign_rows(
    setup: Setup, first: int, rows: SegmentRows, path: Path, count: int
) -> tuple[int, npt.NDArray[np.int32]]:
    """Finds the nearest of the ``count`` centroids in a file for each row. Returns ``first``, and their numbers."""
    _check_storage(setup)
    centroids = _centroids(path, count, setup.token)
    reader = SegmentReader(Sources(setup.shards, setup.folder, rows.names, setup.settings.detector))
    return first, nearest(reader, rows, centroids).astype(np.int32)


@lru_cache(maxsize=1)
def _centroids(path: Path, count: int, build: str) -> npt.NDArray[np.float32]:
    # The files of all builds have the same name, so ``build`` distinguishes them.
    return map_array(path, (count, None))


def write_shard(
    setup: Setup,
    number: int,
    settings: Settings,
    removals: Removals,
    committed: str | None,
    centroids: Path,
    clusters: int,
    next_id: int,
) -> ShardEntry:
    """Writes the next generation of a shard. committed: its current one; next_id: the lowest new id of all shards."""
    _check_storage(setup)
    with (
        ShardsFolder(setup.shards).writing_shard(number, _WAIT) as folder,
        closing(BuildDatabase(setup.database, shard=number)) as database,
    ):
        current, photos = None if committed is None else open_generation(folder, committed), database.photos()
        # Remains of an earlier attempt are deleted, so that all attempts write a generation of the same name.
        keep_only(folder, current, building=set())
        # The shard has only its own clusters, in the same order as among all.
        present, own = np.unique(photos.clusters, return_inverse=True)
        kept = Sources(setup.shards, setup.folder, photos.rows.trim().names, settings.detector)
        # Boxes that were found in photos of before are in the build's database.
        sources = {name: with_boxes(kept[name], database.boxes_of(name)) for name in kept}
        reader = SegmentReader(sources)
        every, clustering = (
            np.ones(len(photos), np.bool_),
            Clustering(map_array(centroids, (clusters, None))[present], own),
        )
        draft = GenerationDraft(settings, removals, database, photos, reader, every, clustering)
        written = GenerationWriter(folder, setup.key, draft, current, next_id).write(make_current=False)
    counts = written.manifest.counts.model_dump(include={"photos", "files", "bad", "clusters"})
    return ShardEntry(folder=shard_name(number), generation=written.name, **counts)

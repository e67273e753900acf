"""Workers of a build encode slices of the photos, assign rows to clusters, and write shards.

Before that, each has to have the storage that all share, and the same networks.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import torch

import model
from indexer.building import Clustering, Contents, GenerationWriter, Journal, LiveState, Progress, Stager
from indexer.distributed.slices import Attempt, Slices, Sources
from indexer.embedding import ClipEmbedder, WantedEmbedder
from indexer.errors import BadInvocation
from indexer.store import (
    Catalog,
    EmbedderEntry,
    Folder,
    GalleryFile,
    Generation,
    IndexFolder,
    Origin,
    Root,
    Rows,
    SegmentRow,
    ShardEntry,
    ShardsFolder,
    assign,
    clean_shard,
    open_generation,
    read_centroids,
    shard_name,
)
from model.checkpoint import default_checkpoint
from model.terminal import Refusal, installed_version

TOKEN = "token"
# After so many workers have ended with a slice its files are read one by one; after so many have ended with one file,
# that file is left out. The first may have ended for a reason of its own, such as a machine that was switched off.
_MOST_DEATHS = 2
_KILLER = "the worker that read it ended, more than once; the next build tries again"
# Seconds. A worker whose machine is taken to be lost may still be writing, and notices within a few that it is alone.
_WAIT = 120


@dataclass(frozen=True)
class Setup:
    """Holds what a build tells every worker.

    Attributes:
        shards: the folder of the shards. key: names the folder in it in which the build works.
        token: what a file there holds, so that whoever reads it is known to see the same storage.
        roots: the gallery's folders. there: those of them that are there.
        weights: the checkpoint's file; None for the one that comes with the program. origin: what it has to be.
        embedder: what clusters are made by.
        device: "cpu" or "cuda". threads: how many threads compute. batch: photos that are encoded together.
        clusters: how many the user asked for; None for about sqrt(photos).
        software: the version of the program.
    """

    shards: Path
    key: str
    token: str
    roots: tuple[Root, ...]
    there: tuple[Folder, ...]
    weights: str | None
    origin: Origin
    embedder: EmbedderEntry
    device: str
    threads: int
    batch: int
    clusters: int | None
    software: str

    @property
    def slices(self) -> Slices:
        """The slices of this run of the build."""
        return Slices(ShardsFolder(self.shards).slices(self.key), self.token[:8])


@lru_cache(maxsize=1)
def opened(setup: Setup) -> tuple[model.Matcher, ClipEmbedder | None]:
    """Loads the networks, once in a build.

    Raises:
        BadInvocation: the worker does not see what it should, or has another checkpoint or version of the program.
    """
    here = f"the worker on {socket.gethostname()}"
    _check_storage(setup, here)
    if (version := installed_version()) != setup.software:
        raise BadInvocation(
            f"{here} has version {version} of sketch-search, and not {setup.software}; install the same everywhere."
        )
    torch.set_num_threads(setup.threads)
    faiss.omp_set_num_threads(setup.threads)
    try:
        matcher = model.load(default_checkpoint(setup.weights), setup.device, torch.float32)
        embedder = WantedEmbedder(setup.embedder.spec, download=False).find(matcher.device)
        same = Origin.of(matcher).with_tokens(setup.origin.tokens) == setup.origin
        if not same or not embedder.entry.same(setup.embedder):
            raise BadInvocation(
                f"{here} has other networks than this machine; let it have the same files at the same paths."
            )
        return matcher, embedder.load()
    except BadInvocation:
        raise
    except Refusal as error:
        raise BadInvocation(f"{here} cannot begin: {error}") from error


def look(setup: Setup) -> None:
    """Find out whether a worker can begin. Raises what ``opened`` does."""
    opened(setup)


def _check_storage(setup: Setup, here: str) -> None:
    advice = "photos and index have to be on storage that all machines share, at the same path on each."
    try:
        found = (setup.slices.folder / TOKEN).read_text()
    except OSError:
        found = ""
    if found != setup.token:
        raise BadInvocation(f"{here} does not see {setup.shards}; {advice}")
    for root in setup.there:
        if not root.is_there():
            advice = "give each machine its credentials, as docs/using.md says." if root.remote else advice
            raise BadInvocation(f"{here} does not see {root}; {advice}")


def encode_slice(setup: Setup, number: int, files: Sequence[GalleryFile]) -> tuple[int, int, int]:
    """Encode the files of a slice, and write it to the storage that all share.

    Returns how many files it has, how many of them cannot be indexed, and how many rows were made. Raises
    BadInvocation, as ``opened`` does.
    """
    slices = setup.slices
    # A worker may end after it has written its slice and before it has said so.
    if not slices.is_done(number):
        networks = opened(setup)
        # From here on, an end of this process counts as one with this slice.
        attempt = slices.begin(number)
        with closing(Journal(attempt.folder)) as journal:
            roots, keeps_tokens = [root.folder for root in setup.roots], setup.origin.tokens > 1
            stager = Stager(roots, *networks, journal, {}, keeps_tokens)
            if attempt.deaths < _MOST_DEATHS:
                stager.stage(files, setup.batch, Progress())
            else:
                _one_by_one(files, stager, journal, attempt)
        attempt.complete()
    with closing(slices.journal(slices.name(number))) as journal:
        records = journal.records().values()
        return len(records), sum(file.reason is not None for file in records), len(journal)


def _one_by_one(files: Sequence[GalleryFile], stager: Stager, journal: Journal, attempt: Attempt) -> None:
    deaths = attempt.deaths_at()
    for number, file in enumerate(files):
        if deaths.get(number, 0) >= _MOST_DEATHS:
            journal.append([replace(file, stamp=None, reason=_KILLER)], [], None)
        else:
            attempt.trying(number)
            stager.stage([file], 1, Progress())


def assign_rows(
    setup: Setup, first: int, rows: Sequence[SegmentRow], path: Path, count: int
) -> tuple[int, npt.NDArray[np.int32]]:
    """Finds the nearest centroid of each row, (m,) int32.

    Args:
        first: the number of the first row among all, which is returned, too. path, count: of the file of centroids.
    """
    centroids = _centroids(path, count, setup.token)
    sources = Sources(setup.shards, setup.slices, (row.segment for row in rows))
    return first, assign(Rows(sources).clustered_by(rows), centroids).astype(np.int32)


@lru_cache(maxsize=1)
def _centroids(path: Path, count: int, build: str) -> npt.NDArray[np.float32]:
    """Reads the centroids in a file. build: names the build, since its file has the name of another's."""
    return read_centroids(path, count)


def write_shard(
    setup: Setup, number: int, plan: Path, committed: str | None, centroids: Path, clusters: int, next_id: int
) -> ShardEntry:
    """Write the next generation of a shard: an ordinary index of its part of the photos.

    Readers go on with the one that is live.

    Args:
        number: of the shard, from 0. plan: the file of its plan.
        committed: the name of its generation that is live; None where it has none.
        centroids: the file of all centroids. clusters: how many they are.
        next_id: the lowest id that no file in any shard has ever had.
    """
    with ShardsFolder(setup.shards).writing_shard(number, _WAIT) as folder:
        live = _clean(folder, committed)
        with Catalog(plan) as catalog:
            planned, removals = catalog.files(), catalog.removals()
        placed = {
            file.shown_content: file.indexed
            for file in planned
            if file.shown_content is not None and file.indexed is not None
        }
        sources = Sources(setup.shards, setup.slices, (indexed.row.segment for indexed in placed.values()))
        # Only the shard's own clusters, in the order of all.
        present = sorted({indexed.cluster for indexed in placed.values()})
        own = {cluster: position for position, cluster in enumerate(present)}
        clustering = Clustering(
            read_centroids(centroids, clusters)[np.array(present)],
            {content: own[indexed.cluster] for content, indexed in placed.items()},
            setup.clusters,
        )
        contents = Contents(
            origin=setup.origin,
            embedder=setup.embedder,
            roots=setup.roots,
            entries=[replace(file, indexed=None) for file in planned],
            removals=removals,
            rows=Rows(sources),
            refs={content: indexed.row for content, indexed in placed.items()},
            to_write=placed.keys(),
            clustering=clustering,
        )
        state = LiveState(live, removals=removals, next_id=next_id)
        written = GenerationWriter(folder, setup.key, contents, state).write(make_live=False)
    counts = written.manifest.counts
    return ShardEntry(
        folder=shard_name(number),
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

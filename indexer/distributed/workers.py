"""The task of a build's workers: they encode slices of the photos.

A worker checks that it reaches the shared storage and has the same networks. A slice, files that were listed
together, gets its name when it is complete, so all slices are, even of killed workers; its name has the build's run.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sketch_search import model
from sketch_search.indexer.building.database import DATABASE_FILE, BuildDatabase
from sketch_search.indexer.building.progress import Progress
from sketch_search.indexer.building.staging import Stager
from sketch_search.indexer.embedding import find_embedder
from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.catalog import GalleryFile
from sketch_search.indexer.store.files import sync_folder
from sketch_search.indexer.store.folders import Folder
from sketch_search.indexer.store.generation import NetworkIdentity, Settings
from sketch_search.indexer.store.location import refuse_if_unwritable
from sketch_search.indexer.store.shards import ShardsFolder
from sketch_search.model.engine import default_checkpoint, set_threads
from sketch_search.model.errors import UserError
from sketch_search.model.terminal import installed_version

if TYPE_CHECKING:
    from sketch_search.model.training.network import ClipEmbedder

TOKEN = "token"


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

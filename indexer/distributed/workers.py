"""Connects to a Ray cluster, and sends tasks to its workers, which Ray starts, assigns and repeats."""

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
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sketch_search import model
from sketch_search.indexer.building.database import DATABASE_FILE, BuildDatabase
from sketch_search.indexer.building.plan import find_embedder
from sketch_search.indexer.building.staging import MAX_DECODERS, Progress, Stager
from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.catalog import GalleryFile
from sketch_search.indexer.store.files import sync_folder
from sketch_search.indexer.store.generation import IndexSettings, NetworkIdentity
from sketch_search.indexer.store.location import refuse_if_unwritable
from sketch_search.indexer.store.remote import Folder
from sketch_search.model.engine import default_checkpoint, set_threads
from sketch_search.model.errors import UserError
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

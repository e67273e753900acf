"""Before it can encode, each worker has to have the storage that all share, and the same networks."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import faiss
import torch

import model
from indexer.embedding import Embedder, WantedEmbedder
from indexer.errors import BadInvocation
from indexer.store import EmbedderEntry, Origin, software_version
from model.checkpoint import default_checkpoint
from model.terminal import Refusal

TOKEN = "token"


@dataclass(frozen=True)
class Setup:
    """The message of a build to every worker.

    Attributes:
        slices: the folder in which the build works. token: what a file in it holds, so that whoever reads it is known
            to see the same storage.
        roots: the gallery's folders. there: those of them that are there.
        weights: the checkpoint's file; None for the one that comes with the program. origin: what it has to be.
        embedder: what clusters are made by.
        device: "cpu" or "cuda". threads: how many threads compute. batch: photos that are encoded together.
        software: the version of the program.
    """

    slices: Path
    token: str
    roots: tuple[Path, ...]
    there: tuple[Path, ...]
    weights: str | None
    origin: Origin
    embedder: EmbedderEntry
    device: str
    threads: int
    batch: int
    software: str

    @property
    def run(self) -> str:
        """Names this run of the build."""
        return self.token[:8]


@dataclass(frozen=True)
class Opened:
    """The networks of a worker."""

    matcher: model.Matcher
    embedder: Embedder


@lru_cache(maxsize=1)
def opened(setup: Setup) -> Opened:
    """The networks, which a worker loads once in a build.

    Raises:
        BadInvocation: the worker does not see what it should, or has another checkpoint or version of the program.
    """
    here = f"the worker on {socket.gethostname()}"
    _check_storage(setup, here)
    if (version := software_version()) != setup.software:
        raise BadInvocation(
            f"{here} has version {version} of sketch-search, and not {setup.software}; install the same everywhere."
        )
    torch.set_num_threads(setup.threads)
    faiss.omp_set_num_threads(setup.threads)
    try:
        matcher = model.load(default_checkpoint(setup.weights), setup.device, torch.float32)
        embedder = WantedEmbedder(setup.embedder.spec, download=False).find(matcher.device)
        if replace(Origin.of(matcher), tokens=setup.origin.tokens) != setup.origin or not embedder.entry.same(
            setup.embedder
        ):
            raise BadInvocation(
                f"{here} has other networks than this machine; let it have the same files at the same paths."
            )
        return Opened(matcher, embedder.load())
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
        found = (setup.slices / TOKEN).read_text()
    except OSError:
        found = ""
    if found != setup.token:
        raise BadInvocation(f"{here} does not see {setup.slices.parent}; {advice}")
    for root in setup.there:
        if not root.is_dir():
            raise BadInvocation(f"{here} does not see {root}; {advice}")

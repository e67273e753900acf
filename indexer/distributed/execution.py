"""A build on many machines, from what is asked for to its report: refuse, connect, decide, build."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

import model
from indexer.building import (
    DEFAULT_BATCH,
    LiveState,
    Progress,
    Request,
    build_key,
    wanted_embedder,
    wanted_origin,
)
from indexer.distributed.builder import ShardsBuilder, ShardsDecision, ShardsReport
from indexer.distributed.connection import Workers, check_address, connected
from indexer.distributed.live_shards import LiveShards
from indexer.distributed.setup import TOKEN, Setup, look
from indexer.embedding import ChosenEmbedder
from indexer.errors import BadInvocation
from indexer.store import (
    MOST_CELLS,
    MOST_SHARDS,
    Origin,
    Root,
    ShardsFolder,
    make_folder,
    software_version,
    write_atomically,
)
from model import Matcher
from model.checkpoint import default_checkpoint

# Some 20 MB of rows of the default network, and a minute of one worker's time, which is what a worker that ends loses.
DEFAULT_SLICE = 1024
_MOST_SLICE = 100_000


def build_shards(
    folders: Sequence[Path],
    index: Path,
    *,
    ray: str,
    shards: int | None = None,
    weights: str | None = None,
    device: str = "auto",
    clusters: int | None = None,
    embedder: str = "auto",
    tokens: Literal["auto", "all", "none"] = "auto",
    recluster: bool = False,
    leave: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
    slice_files: int = DEFAULT_SLICE,
) -> ShardsReport:
    """Index all photos below ``folders`` on many machines, in shards; or bring them up to date.

    A build that was killed is continued. Photos and ``index`` have to be on storage that all machines share, at the
    same path on each.

    Args:
        folders: all folders of the gallery; none for those that the shards have.
        index: the folder of the shards.
        ray: the cluster: "auto", "local" or HOST:PORT. A process that is connected already stays so.
        shards: how many; None for as many as there are, or one.
        weights: the checkpoint's file; None for the one that comes with the program.
        device: "auto", "cpu" or "cuda", of the workers.
        clusters, embedder, tokens, batch: as of ``indexer.build``. Clusters are always made anew.
        recluster: write the shards even if no photo has changed.
        leave: whether folders that the shards have, and that are not named, may leave the gallery.
        workers: how many work at once; None for as many as there is room for.
        slice_files: how many files are a worker's work, which is kept as a whole or not at all.

    Raises:
        BadInvocation: what is asked for cannot be done here, or the cluster cannot do it.
        IndexBusy: another build is writing these shards. IndexRefused: those that are there are damaged.
        ModelError: there is no such checkpoint.
    """
    if shards is not None and not 1 <= shards <= MOST_SHARDS:
        raise BadInvocation(f"the number of shards must be from 1 to {MOST_SHARDS:,}.")
    if not 1 <= slice_files <= _MOST_SLICE:
        raise BadInvocation(f"a slice must have from 1 to {_MOST_SLICE:,} files.")
    request = Request(
        folders=tuple(folders),
        clusters=clusters,
        embedder=embedder,
        tokens=tokens,
        recluster=recluster,
        batch=batch,
    )
    check_address(ray)
    folder = ShardsFolder(index)
    # Before anything slow. What is there may have changed once the lock is held, so all is looked at again.
    _roots(request, folder, LiveShards.read(folder), leave)
    with folder.writing(), connected(ray):
        found = Workers(device, workers)
        matcher = model.load(default_checkpoint(weights), "cpu", torch.float32)
        if matcher.token_count("photo") > 1 and matcher.config.grid**2 > MOST_CELLS:
            raise BadInvocation("an index holds patch grids up to 16 by 16; use a checkpoint with fewer patches.")
        live = LiveShards.read(folder)
        if live is not None:
            folder.settle(live.manifest)
        decision = _decide(request, folder, live, matcher, found, weights, shards, slice_files, leave)
        found.everywhere(look, decision.setup)
        return ShardsBuilder(folder, decision, found, progress or Progress()).run()


def _decide(
    request: Request,
    folder: ShardsFolder,
    live: LiveShards | None,
    matcher: Matcher,
    workers: Workers,
    weights: str | None,
    shards: int | None,
    slice_files: int,
    leave: bool,
) -> ShardsDecision:
    """Decide what to do, and make the folder in which it is done. Raises BadInvocation as ``build_shards`` does."""
    roots = _roots(request, folder, live, leave)
    manifest = None if live is None else live.generations[0].manifest
    origin = wanted_origin(request, manifest, matcher)
    embedder = wanted_embedder(request, manifest, origin).find(matcher.device)
    if manifest is not None and not (manifest.origin == origin and manifest.embedder.same(embedder.entry)):
        raise BadInvocation(
            f"{folder.path} holds shards of another checkpoint or embedder, or with other tokens; name another "
            "folder with --index, or delete that one."
        )
    key = build_key(origin, embedder.entry, roots)
    folder.clean(None if live is None else live.manifest, key)
    setup = _set_up(request, folder.slices(key), roots, origin, embedder, workers, weights)
    state = LiveState.none() if live is None else live.state(roots)
    clusters, number = request.clusters, shards
    same_clusters = True
    if live is not None:
        same_clusters = clusters in (None, live.manifest.clusters_asked, live.manifest.clusters)
        clusters = live.manifest.clusters_asked if clusters is None else clusters
        number = len(live.generations) if number is None else number
    return ShardsDecision(
        live,
        state,
        roots,
        setup,
        key,
        number or 1,
        clusters,
        request.recluster or not same_clusters,
        slice_files,
    )


def _roots(request: Request, folder: ShardsFolder, live: LiveShards | None, leave: bool) -> tuple[Root, ...]:
    """The roots of the next shards.

    Raises:
        BadInvocation: as ``Request.roots`` does; or folders would leave, and ``leave`` is not set.
    """
    manifest = None if live is None else live.generations[0].manifest
    roots = request.roots(folder.path, manifest)
    now = {str(root.path) for root in roots}
    leaving = [root.path for root in (() if manifest is None else manifest.roots) if root.path not in now]
    if leaving and not leave:
        raise BadInvocation(
            f"this takes {', '.join(leaving)} out of the shards, because it is not named; name it, too, or repeat it "
            "with --yes."
        )
    return roots


def _set_up(
    request: Request,
    slices: Path,
    roots: Sequence[Root],
    origin: Origin,
    embedder: ChosenEmbedder,
    workers: Workers,
    weights: str | None,
) -> Setup:
    token = uuid.uuid4().hex
    make_folder(slices)
    write_atomically(slices / TOKEN, token.encode())
    return Setup(
        slices=slices,
        token=token,
        roots=tuple(root.path for root in roots),
        there=tuple(root.path for root in roots if root.path.is_dir()),
        weights=weights,
        origin=origin,
        embedder=embedder.entry,
        device=workers.resources.device,
        threads=workers.resources.cpus,
        batch=request.batch,
        software=software_version(),
    )

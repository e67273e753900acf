"""`sketch-search serve --ray ADDRESS --shards DIR...`: serve a gallery in shards, which a Ray cluster searches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from fastapi import FastAPI

from indexer import BadInvocation, shard_folders
from indexer.distributed import check_address
from model.terminal import printable
from service import PROGRAM
from service.engine import open_matcher
from service.http import create_app
from service.serving import Live, deployed
from service.settings import Settings
from service.sharding import Shards, ShardsRefused, check_folders, shard_names

# Searches of this process at a time: it mostly waits for the shards.
SEARCHES_AT_ONCE = 8
# Until then the shards are waited for. Those that come later are searched from then on.
START_SECONDS = 600.0


def serve_shards(settings: Settings, run: Callable[[FastAPI], int]) -> int:
    """Have a Ray cluster search the shards that the settings name, and serve. Returns the exit code.

    run: serves the application until it is stopped.

    Raises:
        BadInvocation: --ray or --shards is missing, Ray is not installed, or the cluster cannot be reached.
        ShardsRefused: the shards cannot be searched, or not together, or the cluster is too small.
        IndexerError, ModelError: there are no shards in a folder, or the checkpoint cannot be opened.
    """
    if settings.ray is None:
        raise BadInvocation("--shards are searched by a Ray cluster; say with --ray ADDRESS where it is: auto, local.")
    if not settings.shards:
        raise BadInvocation("--ray searches shards; name their folders with --shards DIR...")
    folders = [shard for folder in settings.shards for shard in shard_folders(folder)]
    check_folders(folders)
    check_address(settings.ray)
    matcher = open_matcher(settings)
    with deployed(settings, folders, shard_names(folders)) as there:
        shards = Shards(there.links, settings.shard_seconds)
        print(printable(f"{len(folders)} shards on the Ray cluster {settings.ray}"), flush=True)
        _wait_for(shards)
        return run(
            create_app(
                settings,
                lambda decode: Live(settings, decode, matcher=lambda: matcher, shards=shards, encode=there.encode),
                at_once=SEARCHES_AT_ONCE,
            )
        )


def _wait_for(shards: Shards) -> None:
    """Until all shards answer, or it has taken too long. Raises ShardsRefused, also where none answers."""
    until = time.monotonic() + START_SECONDS
    while shards.missing and time.monotonic() < until:
        shards.refresh(strict=True)
    if not shards.missing:
        return
    told = "; ".join(f"{shard.name}: {shard.reason}" for shard in shards.infos() if not shard.answers)
    if len(shards.missing) == len(shards.links):
        raise ShardsRefused(f"no shard answers ({told}); look at the nodes with `ray status`.")
    print(printable(f"{PROGRAM}: shards are missing, and searched when they come: {told}"), file=sys.stderr)

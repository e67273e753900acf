"""Which shards can be searched together: those of one checkpoint, whose photos all have different ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from service.sharding.errors import ShardsRefused
from service.sharding.shard import Overview

# Ids are kept in four bytes each, since those of all photos are in the memory of the searching process.
MOST_ID = 2**31 - 1
_TOGETHER = "build the shards together, with `sketch-search index build FOLDER --ray ADDRESS`"


def check_folders(folders: Sequence[Path]) -> None:
    """Raise ShardsRefused where there is none, or a folder is named twice."""
    if not folders:
        raise ShardsRefused("no shards are named; name their folders with --shards DIR...")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (first := seen.setdefault(folder.resolve(), folder)) is not folder:
            both = f"{folder}" if first == folder else f"{first} and {folder}"
            raise ShardsRefused(f"one shard is named twice: {both}; name each folder once.")


def shard_names(folders: Sequence[Path]) -> list[str]:
    """The names of shards, as users are told them: those of their folders, numbered where two are the same."""
    names = [folder.name or "shard" for folder in folders]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]


def check_fits(fresh: Overview, number: int, overviews: Sequence[Overview | None], names: Sequence[str]) -> None:
    """Raise ShardsRefused where a shard cannot be searched together with the others.

    Args:
        fresh, number: the shard, and its place among the others.
    """
    name = names[number]
    if len(fresh.ids) and int(fresh.ids.max()) > MOST_ID:
        raise ShardsRefused(f"the shard {name} has photo ids beyond {MOST_ID}; {_TOGETHER} anew.")
    for place, other in enumerate(overviews):
        if place == number or other is None:
            continue
        both = f"the shards {names[place]} and {name}"
        if replace(fresh.origin, tokens=0, pooling=None) != replace(other.origin, tokens=0, pooling=None):
            raise ShardsRefused(f"{both} were made with different checkpoints; {_TOGETHER}.")
        if fresh.origin != other.origin:
            raise ShardsRefused(f"{both} keep tokens in different ways (--groups, --keep); {_TOGETHER}.")
        if (fresh.embedder.kind, fresh.embedder.sha256) != (other.embedder.kind, other.embedder.sha256):
            raise ShardsRefused(f"{both} were clustered by different embedders; {_TOGETHER}.")
        if len(shared := np.intersect1d(fresh.ids, other.ids)):
            raise ShardsRefused(f"{both} both have a photo with the id {shared[0]}; {_TOGETHER}.")

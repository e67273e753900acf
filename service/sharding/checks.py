"""Which shards can be searched together: those of one checkpoint, whose photos all have different ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.sharding.errors import ShardsRefused
from service.sharding.shard import Overview

# Ids are kept in four bytes each, since those of all photos are in the memory of the searching process.
MOST_ID = 2**31 - 1
_TOGETHER = "build the shards together, by `sketch-search index build FOLDER --ray ADDRESS`"


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


def check_fits(overviews: Sequence[Overview | None], number: int, names: Sequence[str]) -> None:
    """Raise ShardsRefused where a shard that is there cannot be searched together with the others.

    Args:
        overviews: of all shards. number: of the one that is looked at. names: of all.
    """
    one, name = overviews[number], names[number]
    if one is None:
        return
    if len(one.ids) and int(one.ids.max()) > MOST_ID:
        raise ShardsRefused(f"the shard {name} has photo ids beyond {MOST_ID}; {_TOGETHER} anew.")
    for place, other in enumerate(overviews):
        if place == number or other is None:
            continue
        both = f"the shards {names[min(place, number)]} and {names[max(place, number)]}"
        if one.origin != other.origin:
            raise ShardsRefused(f"{both} were made with different checkpoints; {_TOGETHER}.")
        if (one.embedder.kind, one.embedder.sha256) != (other.embedder.kind, other.embedder.sha256):
            raise ShardsRefused(f"{both} were clustered by different embedders; {_TOGETHER}.")
        if (shared := _shared(one, other)) is not None:
            raise ShardsRefused(f"{both} both have a photo with the id {shared}; {_TOGETHER}.")


def _shared(one: Overview, other: Overview) -> int | None:
    """An id that both have; None where there is none."""
    # Shards that were built together have all ids of one before those of the next.
    if not len(one.ids) or not len(other.ids) or one.ids.max() < other.ids.min() or other.ids.max() < one.ids.min():
        return None
    shared = np.intersect1d(one.ids, other.ids)
    return int(shared[0]) if len(shared) else None

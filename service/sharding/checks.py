"""Which shards can be searched together: those of one checkpoint, whose photos all have different ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from service.search import Ids
from service.sharding.errors import ShardsRefused, SharedId
from service.sharding.shard import Overview

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
    one = overviews[number]
    if one is None:
        return
    for place, other in enumerate(overviews):
        if place == number or other is None:
            continue
        both = f"the shards {names[min(place, number)]} and {names[max(place, number)]}"
        if one.origin != other.origin:
            raise ShardsRefused(f"{both} were made with different checkpoints; {_TOGETHER}.")
        if (one.embedder.kind, one.embedder.sha256) != (other.embedder.kind, other.embedder.sha256):
            raise ShardsRefused(f"{both} were clustered by different embedders; {_TOGETHER}.")


def check_ids(ids: Mapping[int, Ids], names: Sequence[str]) -> None:
    """Looks at the ids of shards, each of which may have those alone that no shard before it has.

    Args:
        ids: by the number of the shard. names: of all shards.

    Raises:
        SharedId: two shards have a photo with one id.
    """
    seen = np.zeros(1 + max((int(some.max()) for some in ids.values() if len(some)), default=0), np.bool_)
    for number, some in ids.items():
        if (shared := seen[some]).any():
            photo = some[shared][0]
            other = next(other for other in ids if (ids[other] == photo).any())
            first, second = sorted((other, number))
            raise SharedId(
                number,
                f"the shards {names[first]} and {names[second]} both have a photo with the id {photo}; {_TOGETHER}.",
            )
        seen[some] = True

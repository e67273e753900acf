"""Which clusters and files each shard gets, and the plan of a shard: a catalog that says where its rows are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.errors import BadInvocation
from indexer.store import MOST_ID, Drift, GalleryFile, IndexedContent, Removals, write_catalog


def check_ids(next_id: int) -> None:
    """Raises BadInvocation where ids are given that shards cannot have.

    Args:
        next_id: the lowest id that no file has ever had.
    """
    if next_id - 1 > MOST_ID:
        raise BadInvocation(
            f"the ids of the files go up to {next_id - 1:,}, and those of an index in shards end at {MOST_ID:,}; build "
            "it anew in another folder, where they begin at 1."
        )


def place_cells(centroids: npt.NDArray[np.float32], sizes: npt.NDArray[np.int64], shards: int) -> npt.NDArray[np.int64]:
    """The shard of each cluster: neighbours are together, and shards are as equal as whole clusters allow.

    The clusters are cut in two along the direction in which they differ most, and the parts again, until there is one
    for each shard.

    Args:
        centroids: (c, e). sizes: (c,) photos in each. shards: 1..c.

    Returns:
        (c,) int64, from 0; each shard has at least one cluster.
    """
    placed = np.zeros(len(sizes), np.int64)
    _cut(centroids.astype(np.float64), sizes, np.arange(len(sizes)), 0, shards, placed)
    return placed


def _cut(
    centroids: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.int64],
    cells: npt.NDArray[np.int64],
    first: int,
    shards: int,
    placed: npt.NDArray[np.int64],
) -> None:
    """Places some cells into so many shards from ``first`` on."""
    if shards == 1:
        placed[cells] = first
        return
    left = shards // 2
    points = centroids[cells] - centroids[cells].mean(axis=0)
    along = points @ np.linalg.eigh(points.T @ points)[1][:, -1]
    order = cells[np.argsort(along, kind="stable")]
    wanted = sizes[order].sum() * left / shards
    middle = int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right"))
    middle = min(max(middle, left), len(order) - (shards - left))
    _cut(centroids, sizes, order[:middle], first, left, placed)
    _cut(centroids, sizes, order[middle:], first + left, shards - left, placed)


def partition(entries: Sequence[GalleryFile], shard_of: Mapping[str, int], shards: int) -> list[list[GalleryFile]]:
    """The files of each shard: those of a photo are together, and files that are no photos are dealt out.

    Args:
        entries: all files, by id. shard_of: the shard of each photo, by content hash.
    """
    parts: list[list[GalleryFile]] = [[] for _ in range(shards)]
    for file in entries:
        content = file.shown_content
        parts[file.id % shards if content is None else shard_of[content]].append(file)
    return parts


def write_plan(
    path: Path, files: Sequence[GalleryFile], indexed: Mapping[str, IndexedContent], removals: Removals
) -> None:
    """Write the plan of a shard.

    Args:
        files: of the shard. indexed: where the rows of photos are, and in which of all clusters they are, by content
            hash.
    """
    path.unlink(missing_ok=True)
    placed = (
        replace(file, indexed=None if file.shown_content is None else indexed[file.shown_content]) for file in files
    )
    write_catalog(path, placed, removals, Drift(0, 0.0, 0, 0.0, automatic=True))

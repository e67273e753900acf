"""Which files each shard gets, and the plan of a shard: a catalog that says where the rows of its photos are now."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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


def partition(entries: Sequence[GalleryFile], ids: Mapping[str, int], shards: int) -> list[list[GalleryFile]]:
    """The files of each shard. Photos are cut by their ids into parts of equal size, as far as that goes.

    A further file of a photo goes with it. A file that is no photo goes where its id belongs.

    Args:
        entries: all files, by id. ids: the photos' ids, by content hash. shards: 1..photos.
    """
    photos = sorted(ids.values())
    bounds = [photos[number * len(photos) // shards] for number in range(1, shards)]
    parts: list[list[GalleryFile]] = [[] for _ in range(shards)]
    for file in entries:
        content = file.shown_content
        parts[bisect_right(bounds, file.id if content is None else ids[content])].append(file)
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

"""Shards compared with one index of the same photos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sketch_search.indexer.store.generation import current_generation
from sketch_search.indexer.store.location import IndexFolder
from sketch_search.indexer.store.reader import ShardsFolder, ShardsManifest
from sketch_search.indexer.store.rows import SegmentReader
from tests.indexer.galleries import read_catalog, rows_at


def read_shards(shards: Path) -> ShardsManifest:
    manifest = ShardsFolder(shards).manifest()
    assert manifest is not None
    return manifest


@dataclass(frozen=True)
class Held:
    """Holds what is in an index.

    Attributes:
        files: the catalog without rows. photos: the bytes of the rows of each shown photo and its parts. centroids:
            those of its cluster. means: (c, e) the centroids of all clusters.
    """

    files: list[tuple[Any, ...]]
    photos: dict[int, list[bytes]]
    centroids: dict[int, bytes]
    means: np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def held(index: Path) -> Held:
    live = current_generation(IndexFolder(index))
    files, means = read_catalog(live.path / "photos.sqlite"), live.read_means()
    reader = SegmentReader(live.open_rows())
    found = Held([file[:-3] for file in files], {}, {}, means)
    parts = {
        (name, row): count for name, row, count in live.open_photo_table().parts_by_row([*live.manifest.segment_sizes])
    }
    # Of files with one content the first counts.
    shown = {file[3]: file for file in reversed(files) if file[8] == "indexed"}
    for number, *_, cluster, segment, row in shown.values():
        own = range(row, row + 1 + parts.get((segment, row), 0))
        arrays = reader.take(rows_at(*((segment, each) for each in own))).arrays
        found.photos[number] = [np.asarray(arrays[name]).tobytes() for name in sorted(arrays)]
        found.centroids[number] = means[cluster].tobytes()
    return found


def check_same(shards: Path, plain: Path) -> None:
    """The shards hold what the plain index holds: the same files with the same ids, rows and clusters.

    What may differ is the order of rows within a shard; and a shard has the
    centroids of its own photos only, in the order of all.
    """
    manifest = read_shards(shards)
    parts = [held(ShardsFolder(shards).shard(number).path) for number in range(len(manifest.shards))]
    whole = held(plain)
    assert sorted(file for part in parts for file in part.files) == whole.files
    # Each photo is there once, and each cluster is in one shard, with all of its photos.
    assert sorted(photo for part in parts for photo in part.photos) == sorted(whole.photos)
    cells = [{*part.centroids.values()} for part in parts]
    assert sum(map(len, cells)) == len(set().union(*cells)) == len(whole.means)
    for part, entry in zip(parts, manifest.shards, strict=True):
        assert part.photos.items() <= whole.photos.items()
        assert part.centroids.items() <= whole.centroids.items()
        assert (len(part.photos), len(part.means)) == (entry.photos, entry.clusters)
        order = [centroid.tobytes() for centroid in whole.means]
        assert [mean.tobytes() for mean in part.means] == sorted(set(part.centroids.values()), key=order.index)
    assert manifest.clusters == len(whole.means)

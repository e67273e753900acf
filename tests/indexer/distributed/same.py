"""Shards compared with one index of the same photos."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexer.store.catalog import GalleryFile
from indexer.store.generation import Generation, live_generation, open_rows
from indexer.store.location import IndexFolder
from indexer.store.rows import Rows
from indexer.store.shards import ShardsFolder, ShardsManifest
from tests.indexer.galleries import read_catalog, refs_to


def read_shards(shards: Path) -> ShardsManifest:
    manifest = ShardsFolder(shards).manifest()
    assert manifest is not None
    return manifest


@dataclass(frozen=True)
class PhotoBytes:
    """The bytes that an index keeps of one photo: its rows by the name of the array, and its cluster's centroid."""

    rows: dict[str, bytes]
    centroid: bytes


@dataclass(frozen=True)
class Held:
    """Holds what is in an index: its catalog without rows, the shown photos by id, and the centroids (c, e)."""

    files: list[GalleryFile]
    photos: dict[int, PhotoBytes]
    centroids: np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def held(index: Path) -> Held:
    folder = IndexFolder(index)
    live: Generation = live_generation(folder)
    files = read_catalog(live.path / "photos.sqlite")
    centroids = live.read_means()
    rows = Rows(open_rows(folder, live))
    photos: dict[int, PhotoBytes] = {}
    seen: set[str | None] = set()
    for file in files:
        content = file.content_hash
        if file.status != "indexed" or content in seen:
            continue
        seen.add(content)
        assert file.indexed is not None
        arrays = rows.take(refs_to((file.indexed.segment, file.indexed.row))).arrays
        kept = {name: np.asarray(array).tobytes() for name, array in arrays.items()}
        photos[file.id] = PhotoBytes(kept, centroids[file.indexed.cluster].tobytes())
    return Held([replace(file, indexed=None) for file in files], photos, centroids)


def check_same(shards: Path, plain: Path) -> None:
    """The shards hold what the plain index holds: the same files with the same ids, rows and clusters.

    What may differ is the order of rows within a shard; and a shard has the
    centroids of its own photos only, in the order of all.
    """
    manifest = read_shards(shards)
    parts = [held(ShardsFolder(shards).shard(number).path) for number in range(len(manifest.shards))]
    whole = held(plain)
    files = sorted((file for part in parts for file in part.files), key=lambda file: file.id)
    assert files == whole.files
    # Each photo is there once, and each cluster is in one shard, with all of its photos.
    assert sorted(photo for part in parts for photo in part.photos) == sorted(whole.photos)
    cells = [{kept.centroid for kept in part.photos.values()} for part in parts]
    assert sum(map(len, cells)) == len(set().union(*cells)) == len(whole.centroids)
    together = {photo: kept for part in parts for photo, kept in part.photos.items()}
    assert together == whole.photos
    order = {centroid.tobytes(): number for number, centroid in enumerate(whole.centroids)}
    for part, entry in zip(parts, manifest.shards, strict=True):
        assert (len(part.photos), len(part.centroids)) == (entry.photos, entry.clusters)
        numbers = [order[centroid.tobytes()] for centroid in part.centroids]
        assert numbers == sorted({order[kept.centroid] for kept in part.photos.values()})
    assert manifest.clusters == len(whole.centroids)

"""Indexes of up to a million photos that nobody took, to be measured: made from the rows of an index of real ones.

A made photo lies between a real photo and one that looks like it, and away from both by a part of the difference of two
further photos that look alike. So near photos differ as real ones do, and no two are the same. Its tokens are not read
for any choice, only scored. So the files of tokens and regions have a size and no contents, whatever the number of
photos.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer.distributed import place_clusters
from sketch_search.indexer.store.catalog import Removals, write_catalog
from sketch_search.indexer.store.generation import Counts, FileEntry, Manifest, SegmentEntry, current_generation
from sketch_search.indexer.store.location import IndexFolder, generation_name
from sketch_search.indexer.store.rows import (
    BOXES_FILE,
    CLUSTERS_FILE,
    REGION_FILES,
    VECTORS_FILE,
    Centroids,
    PhotoArrays,
    PhotoTable,
    write_array,
    write_blocks,
)
from sketch_search.model.engine import Floats, unit
from sketch_search.model.search.clusters import assign, default_clusters, train_centroids

# Photos among which the one to go towards is drawn; how far at most, of the way; and the share of a further difference.
ALIKE = 10
TOWARDS = 0.5
APART = 0.5
# Rows made at a time, and photos that k-means sees for each cluster.
BLOCK = 1 << 14
PER_CLUSTER = 64
SEED = 0
SEGMENT = "s000001-00000000"
FOLDERS = 100
_FIRST_DAY, _DAYS = date(1970, 1, 1).toordinal(), 3650
_NO_HASH = "0" * 64
_NS = 10**9


class MadePhotos:
    """Makes vectors of photos from those of real ones. The same number always gives the same photo, in any gallery."""

    def __init__(self, ret: Floats, numbers: NDArray[np.int64]) -> None:
        """ret: (m, d) of the real photos, at unit length. numbers: (p,) ascending, of the photos that are made."""
        self._ret, self.numbers = ret, numbers
        self.width = ret.shape[1]
        nearest = faiss.IndexFlatIP(self.width)
        nearest.add(ret)
        # The first of them is the photo itself.
        self._alike = nearest.search(ret, 1 + min(ALIKE, len(ret) - 1))[1][:, 1:]
        # Many small galleries are made of the same few blocks.
        self._block = lru_cache(maxsize=8)(self._made)

    def only(self, numbers: NDArray[np.int64]) -> Self:
        """Returns some of these photos, by their numbers (p,), ascending."""
        some = copy(self)
        some.numbers = numbers
        return some

    def block(self, start: int, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """Vectors (count, d) of the photos from the ``start``-th on, and the real photo (count,) of each."""
        numbers = self.numbers[start : start + count]
        blocks, places = np.unique(numbers // BLOCK, return_inverse=True)
        ret, real = (np.concatenate(parts) for parts in zip(*map(self._block, blocks.tolist()), strict=True))
        taken = places * BLOCK + numbers % BLOCK
        return ret[taken], real[taken]

    def _made(self, number: int) -> tuple[Floats, NDArray[np.int64]]:
        random = np.random.default_rng((SEED, number))
        first, other = random.integers(len(self._ret), size=(2, BLOCK))
        near, further = (self._alike[n, random.integers(self._alike.shape[1], size=BLOCK)] for n in (first, other))
        towards = random.uniform(0, TOWARDS, size=(BLOCK, 1)).astype(np.float32)
        made = self._ret[first] + towards * (self._ret[near] - self._ret[first])
        return unit(made + np.float32(APART) * (self._ret[further] - self._ret[other])), first


def write_large_shards(places: Sequence[Path], source: Path, count: int) -> None:
    """Writes ``count`` photos made of those of the index ``source`` as so many shards of whole clusters by [Ret].

    Where all ``places`` have an index, nothing is written.
    """
    if all(place.exists() and IndexFolder(place).current() is not None for place in places):
        return
    live = current_generation(IndexFolder(source))
    real = live.open_rows((), live.manifest.detector)[live.manifest.segments[0].id]
    ret = real.vectors()
    made = MadePhotos(ret, np.arange(count))
    centroids = _clusters(made, count)
    clusters = np.concatenate([assign(made.block(*block)[0], centroids) for block in _blocks(count)])
    shard_of = place_clusters(centroids, np.bincount(clusters, minlength=len(centroids)), len(places))
    for shard, place in enumerate(places):
        cells, numbers = np.flatnonzero(shard_of == shard), np.flatnonzero(shard_of[clusters] == shard)
        of_shard = np.searchsorted(cells, clusters[numbers])
        _write(place, live.manifest, real, made.only(numbers), centroids[cells], of_shard, count)


def _write(
    place: Path,
    manifest: Manifest,
    real: PhotoArrays,
    made: MadePhotos,
    centroids: Floats,
    clusters: NDArray[np.int64],
    every: int,
) -> None:
    """Writes one index. made: its photos, in these clusters (p,). every: how many photos all shards have."""
    folder, count = IndexFolder(place), len(clusters)
    shutil.rmtree(place, ignore_errors=True)
    folder.create()
    order = np.argsort(clusters, kind="stable")
    rows = folder.segments / SEGMENT
    rows.mkdir()
    _write_tokens(rows, real, made, count)
    generation = folder.path / generation_name(1)
    generation.mkdir()
    write_catalog(generation / "photos.sqlite", _rows(clusters, made.numbers), Removals())
    write_array(generation / CLUSTERS_FILE, centroids)
    _tokens_of_clusters(real, centroids).write(generation)
    PhotoTable(made.numbers[order] + 1, clusters[order], np.zeros(count, np.int64), order).write(generation)
    _write_rows(generation / VECTORS_FILE, made, order, (made.width,), np.float16, lambda ret, _: ret)
    if manifest.detector is not None:
        boxes = np.array(real.arrays["boxes"][:])
        _write_rows(generation / BOXES_FILE, made, order, boxes.shape[1:], np.uint8, lambda _, numbers: boxes[numbers])
    written = _manifest(manifest, folder, count, len(centroids), every)
    (generation / "manifest.json").write_text(written.model_dump_json(indent=1))
    folder.make_current(written.generation)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    yield from ((start, min(BLOCK, count - start)) for start in range(0, count, BLOCK))


def _clusters(made: MadePhotos, count: int) -> Floats:
    clusters = default_clusters(count)
    step = max(1, math.ceil(count / (clusters * PER_CLUSTER)))
    sample = np.concatenate([made.block(*block)[0][::step] for block in _blocks(count)])
    centroids = train_centroids(sample, clusters)
    # Empty clusters are dropped, as a build does it.
    return centroids[np.unique(assign(sample, centroids))]


def _empty(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Writes an array of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + math.prod(shape) * dtype.itemsize)


def _write_tokens(folder: Path, real: PhotoArrays, made: MadePhotos, count: int) -> None:
    """Writes the segment: photos have the cells and scales of those that they are made of, and no features."""
    for name in {"tokens", *REGION_FILES} & real.arrays.keys():
        _empty(folder / f"{name}.npy", (count, *real.arrays[name].shape[1:]), real.arrays[name].dtype)
    for name in ("positions", "scales"):
        array = real.arrays[name]
        blocks = (array[made.block(*block)[1]] for block in _blocks(count))
        write_blocks(folder / f"{name}.npy", (count, *array.shape[1:]), array.dtype, blocks)


def _write_rows(
    path: Path,
    made: MadePhotos,
    order: NDArray[np.int64],
    shape: tuple[int, ...],
    dtype: type[np.generic],
    rows_of: Callable[[Floats, NDArray[np.int64]], NDArray[Any]],
) -> None:
    """Writes rows cell after cell. Photos are made in their own order, and so written into a memory map.

    rows_of: the rows (n, *shape) of photos by their vectors (n, d) and real photos (n,).
    """
    count = len(order)
    row_of = np.empty(count, np.int64)
    row_of[order] = np.arange(count)
    _empty(path, (count, *shape), np.dtype(dtype))
    rows = np.load(path, mmap_mode="r+")
    for start, size in _blocks(count):
        rows[row_of[start : start + size]] = rows_of(*made.block(start, size))
    rows.flush()


def _rows(clusters: NDArray[np.int64], numbers: NDArray[np.int64]) -> Iterator[tuple[Any, ...]]:
    """The rows of the catalog, by id: files of every cluster lie in all folders, and are from all days."""
    for row, (cluster, number) in enumerate(zip(clusters.tolist(), numbers.tolist(), strict=True)):
        path, time, place = f"{row % FOLDERS:03}/{number:07}.jpg", row * _NS, (cluster, SEGMENT, row)
        stamp = (f"{number:064x}", 1 << 16, time, time)
        yield number + 1, 0, path, *stamp, _FIRST_DAY + row % _DAYS, "indexed", None, *place


def _tokens_of_clusters(real: PhotoArrays, centroids: Floats) -> Centroids:
    """Returns tokens that stand for the clusters: those of the real photo that is nearest to each centroid."""
    rows = assign(centroids, real.vectors())
    return Centroids(centroids, real.take(rows).features().astype(np.float16), real.arrays["positions"][rows])


def _manifest(real: Manifest, folder: IndexFolder, count: int, clusters: int, every: int) -> Manifest:
    name = generation_name(1)
    segment = tuple(_entry(path) for path in sorted((folder.segments / SEGMENT).iterdir()))
    counts = Counts(photos=count, files=count, duplicates=0, bad=0, gone=0, clusters=clusters, rows=count)
    changed = {
        "generation": name,
        "previous": None,
        "roots": real.roots[:1],
        "counts": counts,
        "next_id": every + 1,
        "segments": (SegmentEntry(id=SEGMENT, rows=count, files=segment),),
        "files": tuple(_entry(path) for path in sorted((folder.path / name).iterdir())),
    }
    return real.model_copy(update=changed)


def _entry(path: Path) -> FileEntry:
    """Returns the file's entry. Only ``verify`` reads hashes, and those of so large files would take long."""
    return FileEntry(name=path.name, size=path.stat().st_size, sha256=_NO_HASH)

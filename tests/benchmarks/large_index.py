"""Indexes of up to a million photos that nobody took, to be measured: made from the rows of an index of real ones.

A made photo lies between a real photo and one that looks like it, and away from both by a part of the difference of two
further photos that look alike. So near photos differ as real ones do, and no two are the same. Its tokens are not read
for any choice, only scored. So the file of the tokens has a size and no contents, whatever the number of photos.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.store import (
    Centroids,
    Counts,
    Drift,
    FileEntry,
    GalleryFile,
    IndexedContent,
    IndexFolder,
    InvertedCells,
    Manifest,
    Places,
    Removals,
    RowArrays,
    SegmentEntry,
    SegmentRow,
    assign,
    default_clusters,
    generation_name,
    live_generation,
    normalised,
    open_rows,
    write_catalog,
    write_centroids,
    write_inverted_file,
)
from indexer.store.clusters import CentroidTokens
from indexer.store.files import FileStamp, sync_folder, write_atomically

Floats = NDArray[np.float32]

# Photos among which the one to go towards is drawn; how far at most, of the way; and the share of a further difference.
ALIKE = 10
TOWARDS = 0.5
APART = 0.5
# Rows made at a time, and photos that k-means sees for each cluster.
BLOCK = 1 << 14
PER_CLUSTER = 64
ITERATIONS = 10
SEED = 0
SEGMENT = "s000001-00000000"
FOLDERS = 100
_DAYS = 3650
_NO_HASH = "0" * 64
_NS = 10**9


class MadePhotos:
    """Makes [Ret] of photos from those of real ones. The same number always gives the same photo, in any gallery."""

    def __init__(self, ret: Floats, first: int = 0) -> None:
        """ret: (m, d) of the real photos, not normalised. first: the number of the first photo that is made."""
        self._ret, self._first = ret, first
        unit = normalised(ret)
        nearest = faiss.IndexFlatIP(unit.shape[1])
        nearest.add(unit)
        # The first of them is the photo itself.
        self._alike = nearest.search(unit, 1 + min(ALIKE, len(ret) - 1))[1][:, 1:]

    def block(self, start: int, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """[Ret] (count, d) of the photos from the ``start``-th on, and the real photo (count,) that each is made of."""
        first, end = self._first + start, self._first + start + count
        whole = range(first // BLOCK, -(-end // BLOCK))
        ret, real = (np.concatenate(parts) for parts in zip(*map(self._block, whole), strict=True))
        taken = slice(first - whole.start * BLOCK, end - whole.start * BLOCK)
        return ret[taken], real[taken]

    def _block(self, number: int) -> tuple[Floats, NDArray[np.int64]]:
        random = np.random.default_rng((SEED, number))
        first, other = random.integers(len(self._ret), size=(2, BLOCK))
        near, further = (self._alike[n, random.integers(self._alike.shape[1], size=BLOCK)] for n in (first, other))
        towards = random.uniform(0, TOWARDS, size=(BLOCK, 1)).astype(np.float32)
        made = self._ret[first] + towards * (self._ret[near] - self._ret[first])
        return made + np.float32(APART) * (self._ret[further] - self._ret[other]), first


def write_large_index(place: Path, source: Path, count: int, *, inverted: bool, first: int = 0) -> None:
    """Write an index of ``count`` photos that are made of those of the index ``source``, in clusters by [Ret].

    One that is there already stays.

    Args:
        inverted: whether it has an inverted file, whose cells are the clusters.
        first: photos of the gallery that are in other shards before this one; their ids come before, too.
    """
    folder, live = IndexFolder(place), live_generation(IndexFolder(source))
    if folder.path.exists() and folder.current() is not None:
        return
    shutil.rmtree(place, ignore_errors=True)
    folder.create()
    real = open_rows(folder=IndexFolder(source), manifest=live.manifest, segment=live.manifest.segments[0])
    made = MadePhotos(np.array(real.ret), first)
    centroids = _clusters(made, count)
    order, clusters = _laid_out(made, count, centroids)
    rows = folder.segment(SEGMENT)
    rows.mkdir()
    _write_rows(rows, real, made, order)
    generation = folder.generation(generation_name(1))
    generation.mkdir()
    write_catalog(generation / "photos.sqlite", _files(clusters, first), Removals(), Drift(count, 0, count, 0, True))
    write_centroids(generation / "clusters.faiss", centroids)
    _tokens_of_clusters(real, centroids).write(generation)
    if inverted:
        numbers = np.arange(count)
        Places(first + numbers + 1, clusters, np.zeros(count, np.int64), numbers).write(generation)
        ret = np.load(rows / "ret.npy", mmap_mode="r")
        write_inverted_file(generation, ret.__getitem__, InvertedCells(centroids, clusters))
    manifest = _manifest(live.manifest, folder, count, len(centroids), first)
    write_atomically(generation / "manifest.json", manifest.model_dump_json(indent=1).encode())
    sync_folder(folder.path)
    folder.make_live(manifest.generation)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    """The start and the length of each block of photos."""
    yield from ((start, min(BLOCK, count - start)) for start in range(0, count, BLOCK))


def _clusters(made: MadePhotos, count: int) -> Floats:
    """The centroids of clusters, by k-means on a sample."""
    clusters = default_clusters(count)
    wanted = min(count, clusters * PER_CLUSTER)
    step = max(1, math.ceil(count / wanted))
    sample = np.concatenate([normalised(made.block(*block)[0])[::step] for block in _blocks(count)])
    kmeans = faiss.Kmeans(sample.shape[1], clusters, niter=ITERATIONS, seed=SEED, min_points_per_centroid=1)
    kmeans.train(sample)
    centroids = np.asarray(kmeans.centroids, np.float32).reshape(clusters, -1)
    # Empty clusters are dropped, as a build does it.
    return centroids[np.unique(assign(sample, centroids))]


def _laid_out(made: MadePhotos, count: int, centroids: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the photos (count,) in the order of their rows, by cluster; and the cluster of each row."""
    clusters = np.concatenate([assign(normalised(made.block(*block)[0]), centroids) for block in _blocks(count)])
    order = np.argsort(clusters, kind="stable")
    return order, clusters[order]


def _write_rows(folder: Path, real: RowArrays, made: MadePhotos, order: NDArray[np.int64]) -> None:
    """Write the segment's arrays. Photos are made in their own order, and so written by row into memory maps."""
    count = len(order)
    row_of = np.empty(count, np.int64)
    row_of[order] = np.arange(count)
    arrays = {}
    for name, array in real.named().items():
        path = folder / f"{name}.npy"
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *array.shape[1:])})
            file.truncate(file.tell() + count * array[:1].nbytes)
        if name != "tokens":
            arrays[name] = np.load(path, mmap_mode="r+")
    for start, size in _blocks(count):
        ret, first = made.block(start, size)
        rows = row_of[start : start + size]
        for name, array in arrays.items():
            if name == "ret":
                array[rows] = ret
            elif name == "embeddings":
                array[rows] = normalised(ret)
            else:
                array[rows] = getattr(real.tokens, name)[first]
    for array in arrays.values():
        array.flush()


def _files(clusters: NDArray[np.int64], first: int) -> Iterator[GalleryFile]:
    """The catalog, by id: files of every cluster lie in all folders, and are from all days."""
    for row, cluster in enumerate(clusters.tolist()):
        number = first + row
        day = datetime.fromtimestamp(86400 * (row % _DAYS), UTC).date()
        stamp = FileStamp(1 << 16, row * _NS, row * _NS)
        path = f"{row % FOLDERS:03}/{number:07}.jpg"
        indexed = IndexedContent(SegmentRow(SEGMENT, row), cluster)
        yield GalleryFile(0, path, stamp, f"{number:064x}", taken=day, id=number + 1, indexed=indexed)


def _tokens_of_clusters(real: RowArrays, centroids: Floats) -> Centroids:
    """What stands for the clusters: the tokens of the real photo that is nearest to each centroid."""
    nearest = faiss.IndexFlatL2(centroids.shape[1])
    nearest.add(normalised(real.ret))
    rows = nearest.search(centroids, 1)[1][:, 0]
    if real.tokens is None:
        return Centroids(centroids, None)
    tokens = CentroidTokens(real.features(rows).astype(np.float16), np.array(real.tokens.positions[rows]))
    return Centroids(centroids, tokens)


def _manifest(real: Manifest, folder: IndexFolder, count: int, clusters: int, first: int) -> Manifest:
    name = generation_name(1)
    segment = tuple(_entry(path) for path in sorted(folder.segment(SEGMENT).iterdir()))
    counts = Counts(photos=count, files=count, duplicates=0, bad=0, gone=0, clusters=clusters, rows=count)
    changed = {
        "generation": name,
        "previous": None,
        "roots": real.roots[:1],
        "counts": counts,
        "next_id": first + count + 1,
        "segments": (SegmentEntry(id=SEGMENT, rows=count, dtype=real.dtype, files=segment),),
        "files": tuple(_entry(path) for path in sorted(folder.generation(name).iterdir())),
    }
    return real.model_copy(update=changed)


def _entry(path: Path) -> FileEntry:
    """The file's entry. Only ``verify`` reads hashes, and those of so large files would take long."""
    return FileEntry(name=path.name, size=path.stat().st_size, sha256=_NO_HASH)

"""A full check of an index: every byte against its hash, the catalog against the arrays, every value finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from indexer.catalog import Photo, read_catalog
from indexer.clusters import read_centroids
from indexer.errors import IndexRefused
from indexer.files import hash_file
from indexer.generation import Generation, generation_files, live_generation
from indexer.location import IndexFolder
from indexer.segment import BLOCK, Array, RowArrays, map_array, open_segment


def verify(path: Path) -> list[str]:
    """Problems of the live generation, a sentence each; empty for a sound index. Reads everything.

    Raises:
        OSError: a file of the index may not be read.
    """
    folder = IndexFolder(path)
    try:
        live = live_generation(folder)
    except IndexRefused as error:
        return [str(error)]
    problems = [
        f"{file} does not have the content it was written with."
        for file, entry in generation_files(folder, live.manifest)
        if hash_file(file) != entry.sha256
    ]
    # Damaged files would only be reported again in other words, or not open at all.
    if problems:
        return problems
    try:
        return _contents(folder, live)
    except IndexRefused as error:
        return [str(error)]


def _contents(folder: IndexFolder, live: Generation) -> list[str]:
    manifest = live.manifest
    problems: list[str] = []
    segments = {entry.id: open_segment(folder.segment(entry.id)) for entry in manifest.segments}
    for entry in manifest.segments:
        arrays = segments[entry.id].named()
        if {len(array) for array in arrays.values()} != {entry.rows}:
            problems.append(f"segment {entry.id} does not have {entry.rows} rows in every array.")
        if ("tokens" in arrays) != (manifest.tokens > 1):
            problems.append(f"segment {entry.id} does not have the arrays of a network with {manifest.tokens} tokens.")
        problems += [
            f"segment {entry.id} holds values in {name}.npy that are not finite."
            for name, array in arrays.items()
            if not _finite(array)
        ]
    problems += _catalog(read_catalog(live.path / "photos.sqlite"), live, segments)
    if len(read_centroids(live.path / "clusters.faiss")) != manifest.counts.clusters:
        problems.append("clusters.faiss does not have the manifest's number of clusters.")
    for file in manifest.files:
        if file.name.endswith(".npy"):
            array = map_array(live.path / file.name)
            if len(array) != manifest.counts.clusters or not _finite(array):
                problems.append(f"{file.name} does not have one finite row a cluster.")
    return problems


def _catalog(photos: list[Photo], live: Generation, segments: Mapping[str, RowArrays]) -> list[str]:
    counts = live.manifest.counts
    problems: list[str] = []
    content: dict[tuple[str, int], str] = {}
    for photo in photos:
        if photo.segment is None or photo.row is None or photo.cluster is None:
            if photo.status == "indexed":
                problems.append(f"photo {photo.id} is indexed and has no row.")
            continue
        if photo.segment not in segments or not 0 <= photo.row < len(segments[photo.segment]):
            problems.append(f"photo {photo.id} points at row {photo.row} of {photo.segment}, which is not there.")
        elif not 0 <= photo.cluster < counts.clusters:
            problems.append(f"photo {photo.id} is in cluster {photo.cluster} of {counts.clusters}.")
        elif content.setdefault((photo.segment, photo.row), photo.hash) != photo.hash:
            problems.append(f"photo {photo.id} shares a row with a photo of other content.")
    indexed = [photo for photo in photos if photo.status == "indexed"]
    found = (len({photo.hash for photo in indexed}), len(indexed), sum(photo.status == "bad" for photo in photos))
    if found != (counts.photos, counts.files, counts.bad):
        problems.append("the catalog does not hold as many photos, files and bad files as the manifest says.")
    if any(photo.id >= live.manifest.next_id for photo in photos):
        problems.append("the catalog holds an id that the manifest has not given yet.")
    return problems


def _finite(array: Array) -> bool:
    if array.dtype.kind != "f":
        return True
    return all(bool(np.isfinite(array[start : start + BLOCK]).all()) for start in range(0, len(array), BLOCK))

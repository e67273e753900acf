"""A full check of an index: every byte against its hash, the catalog against the arrays, every value finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.errors import IndexRefused, IndexTooNew
from indexer.store import (
    BLOCK,
    Array,
    Generation,
    IndexFolder,
    Photo,
    generation_files,
    hash_file,
    live_generation,
    map_array,
    open_segment,
    read_catalog,
    read_centroids,
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        part: what has to be made anew. segment: which one, where ``part`` is that.
        sentence: for people.
    """

    part: Literal["catalog", "clusters", "segment"]
    sentence: str
    segment: str = ""


def verify(path: Path) -> list[str]:
    """Problems of the live generation, a sentence each; empty for a sound index. Reads everything.

    Raises:
        OSError: a file of the index may not be read.
    """
    folder = IndexFolder(path)
    try:
        return [problem.sentence for problem in examine(folder, live_generation(folder))]
    except IndexRefused as error:
        return [str(error)]


def examine(folder: IndexFolder, generation: Generation) -> list[Problem]:
    """Problems of one generation, its manifest taken to be right.

    Raises:
        IndexTooNew: the catalog was written by a later version. OSError: a file may not be read.
    """
    # Damaged files would only be reported again in other words, or not open at all.
    return list(_files(folder, generation)) or list(_contents(folder, generation))


def _files(folder: IndexFolder, generation: Generation) -> Iterator[Problem]:
    for file, entry in generation_files(folder, generation.manifest):
        try:
            if file.stat().st_size == entry.size and hash_file(file) == entry.sha256:
                continue
            sentence = f"{file} does not have the content it was written with."
        except FileNotFoundError:
            sentence = f"{file} is missing."
        if file.parent != generation.path:
            yield Problem("segment", sentence, file.parent.name)
        else:
            yield Problem("catalog" if file.name == "photos.sqlite" else "clusters", sentence)


def _contents(folder: IndexFolder, live: Generation) -> Iterator[Problem]:
    manifest = live.manifest
    for entry in manifest.segments:
        try:
            opened = open_segment(folder.segment(entry.id))
        except IndexRefused as error:
            yield Problem("segment", str(error), entry.id)
            continue
        for sentence in _rows(opened.named(), entry.rows, manifest.tokens > 1):
            yield Problem("segment", f"segment {entry.id} {sentence}", entry.id)
    try:
        for sentence in _catalog(read_catalog(live.path / "photos.sqlite"), live):
            yield Problem("catalog", sentence)
    except IndexTooNew:
        raise
    except IndexRefused as error:
        yield Problem("catalog", str(error))
    try:
        if len(read_centroids(live.path / "clusters.faiss")) != manifest.counts.clusters:
            yield Problem("clusters", "clusters.faiss does not have the manifest's number of clusters.")
        for file in manifest.files:
            if file.name.endswith(".npy"):
                array = map_array(live.path / file.name)
                if len(array) != manifest.counts.clusters or not _finite(array):
                    yield Problem("clusters", f"{file.name} does not have one finite row a cluster.")
    except IndexRefused as error:
        yield Problem("clusters", str(error))


def _rows(arrays: Mapping[str, Array], rows: int, pruned: bool) -> Iterator[str]:
    if {len(array) for array in arrays.values()} != {rows}:
        yield f"does not have {rows} rows in every array."
    scaled = "tokens" in arrays and arrays["tokens"].dtype == np.int8
    if ("tokens" in arrays) != pruned or ("scales" in arrays) != scaled:
        yield "does not have the arrays that its network makes."
    for name, array in arrays.items():
        if not _finite(array):
            yield f"holds values in {name}.npy that are not finite."


def _catalog(photos: list[Photo], live: Generation) -> Iterator[str]:
    counts = live.manifest.counts
    rows = {entry.id: entry.rows for entry in live.manifest.segments}
    content: dict[tuple[str, int], str] = {}
    for photo in photos:
        if photo.segment is None or photo.row is None or photo.cluster is None:
            if photo.status == "indexed":
                yield f"photo {photo.id} is indexed and has no row."
            continue
        if photo.segment not in rows or not 0 <= photo.row < rows[photo.segment]:
            yield f"photo {photo.id} points at row {photo.row} of {photo.segment}, which is not there."
        elif not 0 <= photo.cluster < counts.clusters:
            yield f"photo {photo.id} is in cluster {photo.cluster} of {counts.clusters}."
        elif content.setdefault((photo.segment, photo.row), photo.hash) != photo.hash:
            yield f"photo {photo.id} shares a row with a photo of other content."
    indexed = [photo for photo in photos if photo.status == "indexed"]
    found = (len({photo.hash for photo in indexed}), len(indexed), sum(photo.status == "bad" for photo in photos))
    if found != (counts.photos, counts.files, counts.bad):
        yield "the catalog does not hold as many photos, files and bad files as the manifest says."
    if any(photo.id >= live.manifest.next_id for photo in photos):
        yield "the catalog holds an id that the manifest has not given yet."


def _finite(array: Array) -> bool:
    if array.dtype.kind != "f":
        return True
    return all(bool(np.isfinite(array[start : start + BLOCK]).all()) for start in range(0, len(array), BLOCK))

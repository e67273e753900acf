"""A full check of an index: files against their hashes, the catalog against the arrays, and all values for NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.errors import IndexRefused, OtherFormat, no_index
from indexer.store import (
    BLOCK,
    INVERTED_FILES,
    PLACES_FILE,
    Array,
    Centroids,
    GalleryFile,
    Generation,
    IndexFolder,
    InvertedFile,
    Manifest,
    Places,
    RowShape,
    SegmentRow,
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
        part: what has to be made anew. sentence: for people. segment: which one, where ``part`` is "segment".
    """

    part: Literal["catalog", "clusters", "lookup", "segment"]
    sentence: str
    segment: str | None = None


def verify(path: Path) -> list[str]:
    """Check the live generation, and read all of it.

    Returns:
        what is wrong, one sentence each; nothing for a sound index.

    Raises:
        IndexRefused: there is no index. OSError: a file of the index may not be read.
    """
    folder = IndexFolder(path)
    try:
        nothing_there = folder.current() is None
    except IndexRefused as error:
        return [str(error)]
    if nothing_there:
        raise no_index(folder.path)
    try:
        return [problem.sentence for problem in examine(folder, live_generation(folder))]
    except IndexRefused as error:
        return [str(error)]


def examine(folder: IndexFolder, generation: Generation) -> list[Problem]:
    """What is wrong with one generation. Its manifest is taken to be right.

    Raises:
        OtherFormat: the catalog has another schema. OSError: a file may not be read.
    """
    # Contents are only checked where all files are sound: what is in a damaged file would be reported twice.
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
            yield Problem(_part(file.name), sentence)


def _contents(folder: IndexFolder, live: Generation) -> Iterator[Problem]:
    manifest = live.manifest
    for entry in manifest.segments:
        try:
            opened = open_segment(folder.segment(entry.id))
        except IndexRefused as error:
            yield Problem("segment", str(error), entry.id)
            continue
        for sentence in _rows(opened.named(), entry.rows, manifest):
            yield Problem("segment", f"segment {entry.id} {sentence}", entry.id)
    files: list[GalleryFile] | None = None
    try:
        found = read_catalog(live.path / "photos.sqlite", roots=len(manifest.roots))
        problems = list(_catalog(found, live))
        yield from (Problem("catalog", sentence) for sentence in problems)
        # What a damaged catalog says is compared with nothing.
        files = None if problems else found
    except OtherFormat:
        raise
    except IndexRefused as error:
        yield Problem("catalog", str(error))
    try:
        read_centroids(live.path / "clusters.faiss", manifest.counts.clusters)
        for file in manifest.files:
            if file.name.startswith("centroid_"):
                array = map_array(live.path / file.name)
                if len(array) != manifest.counts.clusters or not _finite(array):
                    yield Problem("clusters", f"{file.name} does not have one finite row a cluster.")
                if file.name == "centroid_positions.npy" and not _on_grid(array, manifest):
                    yield Problem("clusters", f"{file.name} names cells that the patch grid does not have.")
        Centroids.open(live.path, manifest.counts.clusters, manifest.width, manifest.tokens)
    except IndexRefused as error:
        yield Problem("clusters", str(error))
    try:
        for sentence in _lookup(live, files):
            yield Problem("lookup", sentence)
    except IndexRefused as error:
        yield Problem("lookup", str(error))


def _part(name: str) -> Literal["catalog", "clusters", "lookup"]:
    """What a file of a generation's own folder is a part of."""
    if name == "photos.sqlite":
        return "catalog"
    return "lookup" if name == PLACES_FILE or name in INVERTED_FILES else "clusters"


def _lookup(live: Generation, files: Sequence[GalleryFile] | None) -> Iterator[str]:
    """files: the catalog's; None where it is damaged."""
    if not live.manifest.has_inverted_file:
        return
    photos = live.manifest.counts.photos
    if files is not None:
        places = Places.open(live.path, photos)
        numbers = {entry.id: number for number, entry in enumerate(live.manifest.segments)}
        first: dict[SegmentRow, tuple[int, int, int, int]] = {}
        for file in files:
            if file.status == "indexed" and file.indexed is not None:
                row, cluster = file.indexed.row, file.indexed.cluster
                first.setdefault(row, (file.id, cluster, numbers.get(row.segment, -1), row.number))
        table = sorted(first.values(), key=lambda place: (place[1], place[0]))
        if not np.array_equal(places.table(), np.array(table, np.int64).reshape(-1, 4)):
            yield f"{PLACES_FILE} does not say what the catalog says."
    inverted = InvertedFile(live.path, photos, live.manifest.width)
    yield from (f"the inverted file is damaged: {problem}." for problem in inverted.problems())


def _rows(arrays: Mapping[str, Array], rows: int, manifest: Manifest) -> Iterator[str]:
    if {len(array) for array in arrays.values()} != {rows}:
        yield f"does not have {rows} rows in every array."
    elif not RowShape(rows, manifest.width, manifest.tokens).fits(arrays):
        yield "does not have the arrays that its network makes."
    for name, array in arrays.items():
        if not _finite(array):
            yield f"holds values in {name}.npy that are not finite."
    if "positions" in arrays and not _on_grid(arrays["positions"], manifest):
        yield "names cells in positions.npy that the patch grid does not have, or one cell twice."


def _catalog(files: list[GalleryFile], live: Generation) -> Iterator[str]:
    counts = live.manifest.counts
    rows = {entry.id: entry.rows for entry in live.manifest.segments}
    content_of: dict[SegmentRow, str | None] = {}
    for file in files:
        if file.indexed is None:
            if file.status == "indexed":
                yield f"photo {file.id} is indexed and has no row."
            continue
        row, cluster = file.indexed.row, file.indexed.cluster
        if row.segment not in rows or not 0 <= row.number < rows[row.segment]:
            yield f"photo {file.id} points at row {row.number} of {row.segment}, which is not there."
        elif not 0 <= cluster < counts.clusters:
            yield f"photo {file.id} is in cluster {cluster} of {counts.clusters}."
        elif content_of.setdefault(row, file.content_hash) != file.content_hash:
            yield f"photo {file.id} shares a row with a photo of other content."
    indexed = [file for file in files if file.status == "indexed"]
    found = (len({file.content_hash for file in indexed}), len(indexed), sum(file.status == "bad" for file in files))
    if found != (counts.photos, counts.files, counts.bad):
        yield "the catalog does not hold as many photos, files and bad files as the manifest says."
    if any(file.id >= live.manifest.next_id for file in files):
        yield "the catalog holds an id that the manifest has not given yet."


def _on_grid(positions: Array, manifest: Manifest) -> bool:
    """Whether each row has cells of the network's patch grid, ascending."""
    blocks = (positions[start : start + BLOCK].astype(np.int64) for start in range(0, len(positions), BLOCK))
    return all(bool((block < manifest.cells).all() and (np.diff(block, axis=-1) > 0).all()) for block in blocks)


def _finite(array: Array) -> bool:
    if array.dtype.kind != "f":
        return True
    return all(bool(np.isfinite(array[start : start + BLOCK]).all()) for start in range(0, len(array), BLOCK))

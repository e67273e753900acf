"""Checks all files of an index, repairs them, and compares the index with the photos' files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from indexer.building import (
    DEFAULT_BATCH,
    BuildReport,
    Progress,
    Request,
    StartingPoint,
    decide,
    live_roots,
    run_here,
    wanted_embedder,
    wanted_origin,
)
from indexer.embedding import ChosenEmbedder, WantedEmbedder
from indexer.errors import BadInvocation, IndexRefused, OtherFormat, no_index
from indexer.store import (
    BLOCK,
    EMBEDDINGS_FILE,
    PLACES_FILE,
    VECTORS_FILE,
    Array,
    FileChanging,
    GalleryFile,
    Generation,
    IndexFolder,
    Manifest,
    Picked,
    Places,
    Root,
    SegmentEntry,
    SegmentRow,
    generation_files,
    hash_file,
    live_generation,
    live_generation_if_any,
    open_tokens,
    read_catalog,
    read_manifest,
    shown_path,
)
from model import Matcher

Part = Literal["catalog", "clusters", "places", "segment", "vectors"]


@dataclass(frozen=True)
class Problem:
    """A problem of an index.

    Attributes:
        part: what has to be made anew. sentence: for people. segment: its name, if ``part`` is "segment".
    """

    part: Part
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
        live = live_generation_if_any(folder)
        if live is not None:
            return [problem.sentence for problem in examine(folder, live)]
    except IndexRefused as error:
        return [str(error)]
    raise no_index(folder.path)


def examine(folder: IndexFolder, generation: Generation) -> list[Problem]:
    """Check one generation, whose manifest is taken to be right.

    Raises:
        OtherFormat: the catalog has another schema. OSError: a file may not be read.
    """
    # Contents are only checked if all files are sound: otherwise a damaged file would be reported twice.
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
    """Yields problems in sound files: those that their readers find, and those that readers do not look for."""
    for entry in live.manifest.segments:
        yield from _told("segment", _of_segment(folder, live.manifest, entry), entry.id)
    yield from _told("vectors", _of_vectors(live))
    files: list[GalleryFile] = []
    damaged = list(_told("catalog", _of_catalog(live, files)))
    yield from damaged
    yield from _told("clusters", _of_clusters(live))
    # If the catalog is damaged, the places are not compared with it.
    yield from _told("places", _of_places(live, None if damaged else files))


def _told(part: Part, sentences: Iterator[str], segment: str | None = None) -> Iterator[Problem]:
    """Yields the problems of a part: its sentences, and if its reader refuses it, the reason."""
    try:
        for sentence in sentences:
            yield Problem(part, sentence, segment)
    except OtherFormat:
        raise
    except IndexRefused as error:
        yield Problem(part, str(error), segment)


def _part(name: str) -> Part:
    """Returns the part of a generation to which a file of the generation's own folder belongs."""
    if name == "photos.sqlite":
        return "catalog"
    if name in (VECTORS_FILE, EMBEDDINGS_FILE):
        return "vectors"
    return "places" if name == PLACES_FILE else "clusters"


def _of_segment(folder: IndexFolder, manifest: Manifest, entry: SegmentEntry) -> Iterator[str]:
    tokens = open_tokens(folder.segment(entry.id), entry.rows, manifest.width, manifest.tokens)
    if tokens is not None:
        yield from _of_arrays({f"segments/{entry.id}/{name}": array for name, array in tokens.arrays.items()}, manifest)


def _of_vectors(live: Generation) -> Iterator[str]:
    yield from _of_arrays(live.open_vectors(), live.manifest)


def _of_clusters(live: Generation) -> Iterator[str]:
    live.read_means()
    yield from _of_arrays(live.open_centroids().named(), live.manifest)


def _of_arrays(arrays: Mapping[str, Array | Picked], manifest: Manifest) -> Iterator[str]:
    """Yields a sentence for each of these arrays, by name, that holds values that no build writes."""
    for name, array in arrays.items():
        blocks = (array[start : start + BLOCK] for start in range(0, len(array), BLOCK))
        if name.endswith("positions"):
            if not all(_on_grid(block.astype(np.int64), manifest.cells) for block in blocks):
                yield f"{name}.npy names patches that the grid does not have, or one twice."
        elif array.dtype.kind == "f" and not all(np.isfinite(block).all() for block in blocks):
            yield f"{name}.npy holds values that are not finite."


def _on_grid(patches: npt.NDArray[np.int64], count: int) -> bool:
    """Returns True if each row has numbers of patches below ``count``, ascending."""
    return bool((patches < count).all() and (np.diff(patches, axis=-1) > 0).all())


def _of_places(live: Generation, files: list[GalleryFile] | None) -> Iterator[str]:
    """Yields what is wrong with the places. files: of the catalog; None if the catalog is damaged."""
    places, manifest = live.open_places(), live.manifest
    known = None if files is None else Places.of_files(files, manifest.segment_rows, manifest.counts.clusters)
    if known is not None and not np.array_equal(places.table(), known.table()):
        yield f"{PLACES_FILE} does not say what the catalog says."


def _of_catalog(live: Generation, found: list[GalleryFile]) -> Iterator[str]:
    """Yields what is wrong with the catalog, and fills ``found`` with its files."""
    with live.open_catalog() as catalog:
        found += catalog.files()
    indexed = [file for file in found if file.status == "indexed"]
    content_of: dict[SegmentRow, str | None] = {}
    for file in found:
        if file.indexed is None:
            continue
        if content_of.setdefault(file.indexed.row, file.content_hash) != file.content_hash:
            yield f"photo {file.id} shares a row with a photo of other content."
    counts = live.manifest.counts
    held = (len({file.content_hash for file in indexed}), len(indexed), sum(file.status == "bad" for file in found))
    if held != (counts.photos, counts.files, counts.bad):
        yield "the catalog does not hold as many photos, files and bad files as the manifest says."
    if any(file.id >= live.manifest.next_id for file in found):
        yield "the catalog holds an id that the manifest has not given yet."


@dataclass(frozen=True)
class RepairReport:
    """The outcome of a repair.

    Attributes:
        problems: what was wrong, one sentence each; nothing for a sound index, which is left alone.
        build: the report of the build that repaired it; None if there was nothing to repair.
        remaining: what is still wrong.
    """

    problems: tuple[str, ...]
    build: BuildReport | None = None
    remaining: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The problems of an index, and the generation that a repair can go on from.

    Attributes:
        problems: one sentence each.
        manifest: the newest manifest that can be read. It names the folders, the network and the embedder.
        start: the newest generation whose catalog is sound, and which of its segments are damaged.
        recluster: whether the clusters have to be made anew.
    """

    problems: tuple[str, ...]
    manifest: Manifest
    start: StartingPoint
    recluster: bool


def diagnose(folder: IndexFolder) -> Diagnosis:
    """Check the live generation, and earlier ones if its catalog is damaged. Their files are read completely.

    Raises:
        IndexRefused: there is no index, it has another format, or no generation can be repaired.
        OSError: a file may not be read.
    """
    problems: list[str] = []
    names = folder.generations()
    # A killed build may have left a generation newer than the live one. It was never live.
    candidates = names
    try:
        live = folder.current()
    except IndexRefused as error:
        problems.append(str(error))
    else:
        if live is None:
            raise no_index(folder.path)
        if live in names:
            candidates = names[names.index(live) :]
        else:
            problems.append(f"{folder.generation(live)} is missing.")
    newest: Manifest | None = None
    next_id = _next_id(folder, names)
    for name in candidates:
        try:
            manifest = read_manifest(folder.generation(name) / "manifest.json")
        except OtherFormat:
            raise
        except IndexRefused as error:
            problems.append(str(error))
            continue
        newest = newest or manifest
        generation = Generation(name, folder.generation(name), manifest)
        found = examine(folder, generation)
        problems += [problem.sentence for problem in found]
        parts = {problem.part for problem in found}
        if "catalog" in parts:
            continue
        damaged = frozenset(problem.segment for problem in found if problem.segment is not None)
        if "vectors" in parts:
            # The vectors belong to the photos of all segments.
            damaged = frozenset(segment.id for segment in manifest.segments)
        start = StartingPoint(generation, repairing=True, damaged=damaged, next_id=next_id)
        return Diagnosis(tuple(problems), newest, start, recluster="clusters" in parts)
    if newest is None:
        raise IndexRefused(
            f"nothing of {folder.path} can be repaired: no manifest can be read; delete the folder and build again."
        )
    problems.append("no catalog is left: photos get new ids, and those that were removed come back.")
    return Diagnosis(tuple(problems), newest, StartingPoint(None, repairing=True, next_id=next_id), recluster=True)


def _next_id(folder: IndexFolder, names: Sequence[str]) -> int:
    """Returns an id above all ids in the manifests and catalogs that can be read."""
    found = 1
    for name in names:
        with suppress(IndexRefused):
            found = max(found, read_manifest(folder.generation(name) / "manifest.json").next_id)
        with suppress(IndexRefused):
            files = read_catalog(folder.generation(name) / "photos.sqlite")
            found = max([found, *(file.id + 1 for file in files)])
    return found


def repair(
    index: Path, matcher: Matcher, *, progress: Progress | None = None, batch: int = DEFAULT_BATCH
) -> RepairReport:
    """Check all of an index, and make damaged parts anew from the photos. This also brings the index up to date.

    Raises:
        BadInvocation: a folder of photos is missing. IndexUnwritable: the index's folder cannot be written.
        IndexBusy: a build is writing this index.
        IndexRefused: there is no index, it has another format or another checkpoint, or nothing of it can be used.
    """
    folder = IndexFolder(index)
    if not folder.path.is_dir():
        raise no_index(folder.path)
    found: dict[WantedEmbedder, ChosenEmbedder] = {}
    while True:
        with folder.writing():
            diagnosis = diagnose(folder)
            if not diagnosis.problems:
                return RepairReport(())
            request = _request(folder, diagnosis, matcher, batch)
            origin = wanted_origin(request, diagnosis.manifest, matcher)
            wanted = wanted_embedder(request, diagnosis.start.manifest, origin)
            if not wanted.download:
                found[wanted] = wanted.find(matcher.device)
            if wanted in found:
                decision = decide(request, diagnosis.start, origin, found[wanted], folder.path)
                report = run_here(folder, decision, matcher, progress or Progress())
                return RepairReport(diagnosis.problems, report, diagnose(folder).problems)
        # The embedder may have to be downloaded, which is done without the lock. Then the index is examined again.
        found[wanted] = wanted.find(matcher.device)


def _request(folder: IndexFolder, diagnosis: Diagnosis, matcher: Matcher, batch: int) -> Request:
    manifest = diagnosis.manifest
    if manifest.photo_sha256 != matcher.photo_sha256:
        raise IndexRefused(
            f"the index at {folder.path} was built with other photo weights ({manifest.network}, "
            f"{manifest.photo_sha256[:12]}); name a checkpoint on these with --weights."
        )
    roots = live_roots(manifest)
    for root in roots:
        if not root.folder.is_there():
            # The photos in this folder would be lost if their rows are damaged.
            raise BadInvocation(f"{root.folder} is not there; mount its disk, and run the same again.")
    return Request(
        folders=[str(root.folder) for root in roots],
        # "auto" is the embedder of the generation to go on from. Without such a generation, the manifest names it.
        embedder="auto" if diagnosis.start.generation is not None else manifest.embedder.spec,
        recluster=diagnosis.recluster,
        batch=batch,
    )


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing the files with the index.

    Attributes:
        files: how many were to be compared. problems: one sentence for each file that is not what was indexed.
        absent: the folders of the gallery that are not there, so that their files could not be compared.
    """

    files: int
    problems: tuple[str, ...]
    absent: tuple[str, ...]


def compare(path: Path, seen: Callable[[int, int], None] = lambda done, total: None) -> Comparison:
    """Read every indexed file and compare it with what was indexed, whatever its size and times say.

    Args:
        seen: is called after each file with the number of files done, and the number of all files.

    Raises:
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    live = live_generation(IndexFolder(path))
    roots = live_roots(live.manifest)
    names = [root.name for root in roots]
    there = [root.folder.is_there() for root in roots]
    with live.open_catalog() as catalog:
        files = [file for file in catalog.files() if file.status == "indexed"]
    problems: list[str] = []
    for number, file in enumerate(files, 1):
        if there[file.root] and (problem := _difference(file, roots)) is not None:
            problems.append(f"{shown_path(names, file.root, file.path)} {problem}.")
        seen(number, len(files))
    absent = tuple(
        f"{root.folder} is not there: its {sum(file.root == number for file in files)} files were not compared."
        for number, root in enumerate(roots)
        if not there[number]
    )
    return Comparison(len(files), tuple(problems), absent)


def _difference(file: GalleryFile, roots: Sequence[Root]) -> str | None:
    """Says how a file differs from what was indexed; None if it does not differ."""
    try:
        data = roots[file.root].folder.read(file.path).data
    except FileChanging:
        return "is changing right now"
    except FileNotFoundError:
        return "is not there any more"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    same = hashlib.sha256(data).hexdigest() == file.content_hash
    return None if same else "has changed since it was indexed"

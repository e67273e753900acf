"""Takes photos out of an index, without reading one. Their rows go when a build merges the segments."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.building import Clustering, Contents, GenerationWriter, LiveState, live_roots, shown_ids
from indexer.errors import BadInvocation
from indexer.store import (
    FileKey,
    GalleryFile,
    Generation,
    IndexFolder,
    Removals,
    Root,
    Rows,
    keep_only,
    live_generation,
    open_rows,
    place_meant,
    shown_path,
    with_folders,
)

# Names the folder in which a removal works.
_KEY = "removal"


@dataclass(frozen=True)
class RemovalReport:
    """The outcome of a removal.

    Attributes:
        generation: the live generation's name. changed: False if nothing had to be written.
        photos: how many are shown now. files: how many were removed, with files that could not be indexed.
    """

    generation: str
    changed: bool
    photos: int
    files: int


@dataclass(frozen=True)
class RemovalPlan:
    """The effect that a removal would have.

    Attributes:
        leaving: each path that was named, as results show it, or the address of a whole root; with its number of files.
        files: how many files leave together. of: how many files the index has.
        live: the state that the next generation goes on from. roots, entries, removals: of the next generation.
    """

    leaving: tuple[tuple[str, int], ...]
    files: int
    of: int
    live: LiveState
    roots: Sequence[Root]
    entries: Sequence[GalleryFile]
    removals: Removals


def plan_removal(targets: Sequence[str | Path], index: Path, *, ids: Sequence[int] = ()) -> RemovalPlan:
    """Say what ``remove`` would do. Arguments and errors are those of ``remove``, but nothing is written."""
    return _planned(live_generation(IndexFolder(index)), targets, ids)


def remove(targets: Sequence[str | Path], index: Path, *, ids: Sequence[int] = ()) -> RemovalReport:
    """Take photos out of the index. Later builds leave them out too, until a build adds them again.

    Args:
        targets: paths of files and folders, as results show them or on disk. A folder stands for all below it, now and
            later. A whole root leaves the gallery.
        ids: each stands for all files of a photo.

    Raises:
        BadInvocation: the index has no such photo, a path may mean one file or another, or no photo would be left.
        IndexUnwritable: the index's folder cannot be written. IndexBusy: a build is writing this index.
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    folder = IndexFolder(index)
    # This comes before the lock, which would make a folder if there is no index.
    live_generation(folder)
    with folder.writing():
        before = live_generation(folder)
        plan = _planned(before, targets, ids)
        keep_only(folder, before)
        after = _written(folder, before, plan)
        keep_only(folder, after)
        return RemovalReport(after.name, after.name != before.name, after.manifest.counts.photos, plan.files)


def _written(folder: IndexFolder, before: Generation, plan: RemovalPlan) -> Generation:
    """Writes the planned generation from the rows and clusters of ``before``; returns that if nothing changes."""
    live = plan.live
    if live.holds(plan.entries, plan.roots, plan.removals):
        return before
    manifest, ids = before.manifest, shown_ids(plan.entries)
    rows = Rows(open_rows(folder, before))
    centroids = before.read_means(rows.clustered_by([]).shape[1])
    cluster_of = {content: live.contents[content].cluster for content in ids}
    contents = Contents(
        origin=manifest.origin,
        embedder=manifest.embedder,
        roots=plan.roots,
        entries=plan.entries,
        removals=plan.removals,
        rows=rows,
        refs={content: live.contents[content].row for content in ids},
        to_write=frozenset(),
        clustering=Clustering(centroids, cluster_of, manifest.clusters_asked, kept=True),
    )
    written = GenerationWriter(folder, _KEY, contents, live).write()
    shutil.rmtree(folder.building(_KEY), ignore_errors=True)
    return written


def _planned(before: Generation, targets: Sequence[str | Path], ids: Sequence[int]) -> RemovalPlan:
    """Plans the generation that follows ``before``. Raises BadInvocation as ``remove`` does."""
    roots = live_roots(before.manifest)
    live = LiveState.read(before, roots)
    there = [file for file in live.files if not file.gone]
    found = tuple(dict.fromkeys([*_by_path(targets, live.files, there, roots), *_by_id(ids, live.files)]))
    removals = live.removals
    leaving = {root for root, path in found if not path}
    for root, path in found:
        if path:
            removals = removals.changed(root, path, removed=True)
    staying = [root for number, root in enumerate(roots) if number not in leaving]
    removals = removals.renumbered(
        [None if number in leaving else staying.index(root) for number, root in enumerate(roots)]
    )
    renumbered = LiveState.read(before, staying)
    entries = [
        replace(file, gone=True, reason=None) if removals.hides(file.root, file.path) else file
        for file in renumbered.files
    ]
    if not shown_ids(entries):
        raise BadInvocation("no photo would be left; to remove the index, delete its folder.")
    files = len(there) - sum(not file.gone for file in entries)
    named = tuple(_leaving(place, there, roots) for place in found)
    return RemovalPlan(named, files, len(there), renumbered, staying, entries, removals)


def _leaving(place: FileKey, there: Sequence[GalleryFile], roots: Sequence[Root]) -> tuple[str, int]:
    root, path = place
    files = sum(file.root == root and path in with_folders(file.path) for file in there)
    return shown_path([each.name for each in roots], root, path) if path else str(roots[root].folder), files


def _by_id(ids: Sequence[int], files: Sequence[GalleryFile]) -> Iterator[FileKey]:
    """Yields all files of the photos of these ids."""
    for number in ids:
        content = next((file.shown_content for file in files if file.id == number), None)
        if content is None:
            raise BadInvocation(f"no photo has the id {number}.")
        yield from ((file.root, file.path) for file in files if file.shown_content == content)


def _by_path(
    targets: Sequence[str | Path], files: Sequence[GalleryFile], there: Sequence[GalleryFile], roots: Sequence[Root]
) -> Iterator[FileKey]:
    """Yields the files and folders at these paths."""
    names = [root.name for root in roots]
    known = {(file.root, part) for file in there for part in with_folders(file.path)}
    by_shown_path = {shown_path(names, root, path).rstrip("/"): (root, path) for root, path in known}
    # The empty path is the shown path of a single root. Nobody means the whole gallery by "/".
    by_shown_path.pop("", None)
    ids = {str(file.id) for file in files if file.shown_content is not None}
    for target in map(str, targets):
        if not target:
            raise BadInvocation("a path is missing: '' names nothing; write . for the current folder.")
        shown = by_shown_path.get(target.rstrip("/"))
        place = place_meant(target, shown, known.__contains__, roots)
        if place is None:
            advice = "name one as results show it, or a folder of them"
            if target in ids:
                advice = f"the photo of that id is named by --id {target}"
            raise BadInvocation(f"the index has no photo at {target}; {advice}.")
        yield place

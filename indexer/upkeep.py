"""Maintains an existing index: describes it, verifies it, removes photos from it, and watches its gallery."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from sketch_search.indexer.building.database import DATABASE_FILE, BuildDatabase
from sketch_search.indexer.building.folder_listing import FolderListing
from sketch_search.indexer.building.plan import BuildRequest, Current
from sketch_search.indexer.building.writer import Clustering, GenerationDraft, GenerationWriter
from sketch_search.indexer.errors import BadInvocation, IndexRefused
from sketch_search.indexer.store import location
from sketch_search.indexer.store.catalog import Catalog, PhotoFilter, Removals
from sketch_search.indexer.store.folders import Address
from sketch_search.indexer.store.generation import Generation, Manifest, current_generation, find_generation, keep_only
from sketch_search.indexer.store.remote import Folder
from sketch_search.indexer.store.rows import SegmentReader
from sketch_search.model.answers import UnreadFile
from sketch_search.model.engine.detector import NO_KIND
from sketch_search.model.files import read_regular

_MAX_SUMMARY = 2**28
# Names the folder in which a removal works.
_KEY = "removal"
# After this many pauses the index is brought up to date even if the gallery keeps changing.
PATIENCE = 6


class _Removed(BaseModel):
    """The part of a summary that is read, also from another version."""

    removed: tuple[str, ...]


class IndexSummary(BaseModel):
    """A summary of the current generation of an index.

    boxes: of things, in so many photos. removed: files and folders that the user removed, as shown.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    generation: str
    bytes_on_disk: int
    manifest: Manifest
    boxes: int
    photos_with_boxes: int
    bad: tuple[UnreadFile, ...]
    removed: tuple[str, ...]


def indexed_folders(path: Path) -> list[Folder]:
    """Lists the folders that an index has; none if there is no index. Raises as ``read_summary`` does."""
    current = find_generation(location.IndexFolder(path))
    return [] if current is None else [root.folder for root in current.manifest.roots]


def read_summary(path: Path) -> IndexSummary:
    """Describes an index. Raises IndexRefused: there is none, of another format, or with a missing or short file."""
    folder = location.IndexFolder(path)
    current = current_generation(folder)
    shown_path = partial(location.shown_path, current.manifest.root_names)
    with current.open_catalog() as catalog:
        bad = [UnreadFile(shown_path(file.root, file.path), file.reason or "") for file in catalog.bad()]
        removed = [shown_path(*key) for key, is_removed in sorted(catalog.removals().rules.items()) if is_removed]
    boxes_by_row = current.boxes_by(current.manifest.detector)
    shown = current.open_photo_table().ids > 0
    boxes = np.zeros(0) if boxes_by_row is None else (boxes_by_row[shown, :, 0] != NO_KIND).sum(axis=1)
    return IndexSummary(
        path=folder.path,
        generation=current.name,
        bytes_on_disk=sum(entry.size for _, entry in current.files()),
        manifest=current.manifest,
        boxes=int(boxes.sum()),
        photos_with_boxes=int((boxes > 0).sum()),
        bad=tuple(bad),
        removed=tuple(removed),
    )


@dataclass(frozen=True)
class FileCounts:
    """How many indexed files lie below each folder, by the path that users see, and were taken on each day.

    A path with /. at its end is the folder without its subfolders, if both have files; . alone is a single root.
    ``undated`` files do not say when they were taken: their last change counts.
    """

    folders: dict[str, int]
    days: dict[date, int]
    undated: int


def count_files(path: Path, days: int, photo_filter: PhotoFilter) -> FileCounts:
    """Counts files by folder, in order of paths, and the wanted of the last ``days``. Raises as ``read_summary``."""
    current = current_generation(location.IndexFolder(path))
    names, counts, alone = current.manifest.root_names, Counter[str](), dict[str, int]()
    with current.open_catalog() as catalog:
        for root, innermost, files in catalog.folders():
            # A single root is all that there is, and has no path.
            for folder in location.with_folders(innermost):
                counts[location.shown_path(names, root, folder).rstrip("/")] += files
            alone[location.shown_path(names, root, innermost).rstrip("/")] = files
        dated = [*catalog.days(days, photo_filter, names)]
    around = {folder.rpartition("/")[0] for folder in counts if folder}
    counts.update({f"{folder}/.".lstrip("/"): files for folder, files in alone.items() if folder in around})
    by_day = {date.fromordinal(day): files for day, files, _ in dated}
    undated = sum(files for *_, files in dated)
    return FileCounts({folder: counts[folder] for folder in sorted(counts) if folder}, by_day, undated)


def verify(path: Path) -> list[str]:
    """Reads every file of the current generation, and compares it with its recorded hash.

    Returns the damage, one sentence each, which the next build computes again. Raises IndexRefused if there is no
    index, or its manifest cannot be read.
    """
    folder = location.IndexFolder(path)
    if (current := find_generation(folder, check=False)) is None:
        raise location.no_index(folder.path)
    damaged = current.damage(read=True)
    if damaged or folder.damaged.exists():
        # An index may lie on a read-only disk.
        with suppress(OSError):
            current.record_damage(damaged)
    return [*damaged.values()]


@dataclass(frozen=True)
class RemovalReport:
    """The outcome of a removal: how many ``photos`` are shown now, and how many ``files`` left, bad ones with them."""

    generation: str
    photos: int
    files: int


@dataclass(frozen=True)
class RemovalPlan:
    """The effect that a removal would have: ``files`` of the index's ``of`` files leave.

    ``leaving`` has each path that was named, as results show it, or the address of a whole root; with its number of
    files. ``roots`` and ``removals`` are those of the next generation.
    """

    leaving: tuple[tuple[str, int], ...]
    files: int
    of: int
    roots: tuple[location.Root, ...]
    removals: Removals


def removed_elsewhere(summary: Path, index: Path) -> list[str]:
    """Lists paths removed in ``index info --json`` that an index has. Raises BadInvocation, IndexRefused, OSError."""
    try:
        removed = _Removed.model_validate_json(read_regular(summary, _MAX_SUMMARY)).removed
    except ValidationError as error:
        raise BadInvocation(f"{summary} is not the output of `sketch-search index info --json`.") from error
    current = current_generation(location.IndexFolder(index))
    with current.open_catalog() as catalog:
        keys = [(path, location.key_shown(current.manifest.root_names, path)) for path in removed]
        return [path for path, key in keys if key is not None and catalog.count(*key)[0]]


def remove(targets: Sequence[str | Path], index: Path, *, ids: Sequence[int] = ()) -> RemovalReport:
    """Removes photos from the index without reading any. Later builds leave them out, until a build adds them again.

    targets: paths of files and folders, as results show them or on disk. A folder stands for all below it, now and
    later; a whole root leaves the gallery. ids: each stands for all files of a photo. Their rows go when a build merges
    the segments, and all thumbnails at once.

    Raises BadInvocation: no such photo, an ambiguous path, or no photo would be left; IndexUnwritable; IndexBusy;
    IndexRefused.
    """
    folder = location.IndexFolder(index)
    # This comes before the lock, which would make a folder if there is no index.
    current_generation(folder)
    with folder.writing():
        before = current_generation(folder)
        plan = plan_removal(targets, index, ids=ids)
        keep_only(folder, before)
        after = _write_without(folder, before, plan)
        keep_only(folder, after)
        # Servers make those of other photos again.
        if location.is_folder(folder.path / location.THUMBNAILS):
            shutil.rmtree(folder.path / location.THUMBNAILS, ignore_errors=True)
        return RemovalReport(after.name, after.manifest.counts.photos, plan.files)


def _write_without(folder: location.IndexFolder, before: Generation, plan: RemovalPlan) -> Generation:
    """Writes a generation with the rows and clusters of ``before``, without what the plan removes."""
    manifest, working = before.manifest, folder.building(_KEY)
    settings = manifest.settings.model_copy(update={"roots": plan.roots})
    with closing(BuildDatabase(working / DATABASE_FILE)) as database:
        database.take_over({"": before}, Current.of(before).numbers(plan.roots))
        database.hide(plan.removals.hides)
        photos, reader = database.choose_photos(), SegmentReader(before.open_rows((), manifest.detector))
        clustering = Clustering(before.read_kmeans_centroids(), photos.clusters, True)
        none = np.zeros(len(photos), np.bool_)
        draft = GenerationDraft(settings, plan.removals, database, photos, reader, none, clustering)
        written = GenerationWriter(folder, _KEY, draft, before, manifest.next_id).write()
    shutil.rmtree(working, ignore_errors=True)
    return written


def plan_removal(targets: Sequence[str | Path], index: Path, *, ids: Sequence[int] = ()) -> RemovalPlan:
    """Computes the effect of ``remove``, and raises as it does, but writes nothing."""
    before = current_generation(location.IndexFolder(index))
    roots = before.manifest.roots
    with before.open_catalog() as catalog:
        named = [_by_path(str(target), catalog, roots) for target in targets]
        for number in ids:
            if not (same := catalog.sharing([number])):
                raise BadInvocation(f"no photo has the id {number}.")
            named += [(file.root, file.path) for file in same]
        keys = dict.fromkeys(named)
        counts = {key: catalog.count(*key) for key in keys}
        removals = catalog.removals()
        # Files in a folder that leaves are counted once.
        outer = [
            (root, path) for root, path in keys if not any((root, f) in keys for f in location.with_folders(path)[:-1])
        ]
        files, shown = np.sum([(0, 0), *(counts[key] for key in outer)], axis=0).tolist()
    for root, path in keys:
        if path:
            removals = removals.with_change(root, path, removed=True)
    gone = {root for root, path in keys if not path}
    staying = tuple(root for number, root in enumerate(roots) if number not in gone)
    numbers = [None if number in gone else staying.index(root) for number, root in enumerate(roots)]
    whole = before.manifest.counts
    if shown == whole.files:
        raise BadInvocation(
            f"no photo would be left; to remove the index, delete its own folder, {index}: photos stay."
        )
    names = before.manifest.root_names
    leaving = tuple(
        (location.shown_path(names, root, path) if path else roots[root].path, count)
        for (root, path), (count, _) in counts.items()
    )
    return RemovalPlan(leaving, files, whole.files + whole.bad, staying, removals.renumber(numbers))


def _by_path(target: str, catalog: Catalog, roots: Sequence[location.Root]) -> location.FileKey:
    if not target:
        raise BadInvocation("a path is empty; write . for the current folder.")
    # A whole root may be removed although it has no photos.
    key = location.key_meant(target, lambda key: not key[1] or catalog.count(*key)[0] > 0, roots)
    if key is None:
        advice = "name one as results show it, or a folder of them"
        if target.isascii() and target.isdigit() and catalog.sharing([int(target)]):
            advice = f"name the photo with that id by --id {target}"
        raise BadInvocation(f"the index has no photo at {target}; {advice}.")
    return key


def address_of_removed(target: Address, index: Path) -> Address:
    """Returns the address of what was removed at a shown path; others as they are. Raises BadInvocation."""
    # A build reports the damage of an index.
    with suppress(IndexRefused):
        current = current_generation(location.IndexFolder(index))
        roots = current.manifest.roots
        with current.open_catalog() as catalog:
            removals = catalog.removals()
        if (key := location.key_meant(str(target), lambda key: removals.hides(*key), roots)) is not None:
            return location.address_at(key, roots)
    return target


def gallery_state(index: Path, request: BuildRequest | None = None) -> str:
    """Digests the names, sizes and times of all image files of a gallery, or of the folders of ``request``.

    Raises IndexRefused: the index has another format or is damaged; BadInvocation as ``BuildRequest.roots`` does.
    """
    folder = location.IndexFolder(index)
    current = find_generation(folder)
    manifest = None if current is None else current.manifest
    digest = hashlib.sha256()
    request = request or BuildRequest()
    listing = FolderListing(request.roots(folder.path, manifest), folder.path, exclusions=request.exclusions(manifest))
    for file in listing:
        digest.update(f"{file.root}/{file.path}\0{file.stamp}\0".encode())
    return digest.hexdigest()


def watch(
    read_state: Callable[[], str], update: Callable[[], bool], pauses: Iterable[object], indexed: str | None = None
) -> None:
    """Brings the index up to date whenever the gallery has changed and then stayed the same for one pause.

    read_state: as ``gallery_state``. update: brings the index up to date; False to be called again after the next
    pause. pauses: waits before each of its items, and ends the watch. indexed: the state of the index, if it is known.
    """
    last = indexed
    changes = 0
    for _ in pauses:
        now = read_state()
        # An update waits for a pause without changes, so that it does not read files that are still being copied.
        changes = changes + 1 if now != last else 0
        last = now
        if now != indexed and (changes == 0 or changes >= PATIENCE):
            changes = 0
            # This is the state before the update, so that changes during the update are seen after the next pause.
            indexed = now if update() else None

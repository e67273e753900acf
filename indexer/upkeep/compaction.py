"""Changes to the live index that need no network: photos taken out, segments merged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.building import Clustering, Contents, GenerationWriter, LiveState, live_roots, shown_order
from indexer.errors import BadInvocation, IndexRefused
from indexer.store import (
    Generation,
    IndexFolder,
    Photo,
    Removals,
    Root,
    RowRef,
    Rows,
    kept,
    live_generation,
    locate,
    open_segment,
    previous,
    read_centroids,
    shown_path,
)

_KEY = "upkeep"
_ID = re.compile(r"\d+")


@dataclass(frozen=True)
class UpkeepReport:
    """What became of the index.

    Attributes:
        generation: the live generation's name. changed: False where nothing had to be written.
        photos: shown now. files: taken out, those that were gone or bad among them.
        segments: how many there are now. rows: in all of them. dropped: rows deleted.
        freed: bytes of segments that are deleted, less those written.
    """

    generation: str
    changed: bool
    photos: int
    files: int
    segments: int
    rows: int
    dropped: int
    freed: int


def remove(targets: Sequence[str | Path], index: Path) -> UpkeepReport:
    """Take photos out of the index; their files stay. They stay out in later builds, until ``add`` names them.

    Args:
        targets: ids, which stand for all files of the photo; paths of files and folders as results show them; or
            paths on disk. A folder stands for all below it, now and later; a root leaves the gallery.

    Raises:
        BadInvocation: the index knows no such photo, or none would be left. IndexUnwritable among it.
        IndexBusy: a build is writing this index. IndexRefused: there is none, or it is newer or damaged.
    """
    folder = IndexFolder(index)
    live_generation(folder)
    with folder.writing():
        generation = live_generation(folder)
        roots = live_roots(generation.manifest)
        before = LiveState.read(generation, roots)
        removals = before.removals
        dropped: set[int] = set()
        for root, path in _places(targets, before.photos, roots):
            if path:
                removals = removals.removing(root, path)
            else:
                dropped.add(root)
        staying = [root for number, root in enumerate(roots) if number not in dropped]
        numbers = [None if number in dropped else staying.index(root) for number, root in enumerate(roots)]
        removals = removals.renumbered(numbers)
        live = LiveState.read(generation, staying)
        entries = [
            replace(photo, status="gone", reason=None) if removals.hides(photo.root, photo.path) else photo
            for photo in live.photos
        ]
        if not shown_order(entries):
            raise BadInvocation("no photo would be left; to have done with an index, delete its folder.")
        folder.clean(*kept(generation, previous(folder, generation)), building=None)
        written = _write(folder, live, staying, entries, removals, frozenset())
        folder.clean(*kept(written, previous(folder, written)), building=None)
        files = _listed(before.photos) - _listed(entries)
        return _report(generation, written, files)


def compact(index: Path) -> UpkeepReport:
    """Merge all segments into one, without the rows that are not shown. What searches answer stays the same, but that
    rows of format 1 are written as they would be now, in half the space, which moves scores slightly.

    The generation before is deleted at once, to free its space. Readers that have it open go on with it.

    Raises:
        IndexBusy, IndexUnwritable: as ``remove`` does. IndexRefused: there is no index, or it is newer or damaged.
    """
    folder = IndexFolder(index)
    live_generation(folder)
    with folder.writing():
        generation = live_generation(folder)
        if not generation.manifest.exact:
            raise IndexRefused("an earlier version made this index in another precision; build it once more first.")
        folder.clean(*kept(generation, previous(folder, generation)), building=None)
        roots = live_roots(generation.manifest)
        live = LiveState.read(generation, roots)
        order = shown_order(live.photos)
        segments = generation.manifest.segments
        scattered = len(segments) > 1 or generation.manifest.counts.rows > len(order)
        written = generation
        if scattered or any(segment.outdated for segment in segments):
            written = _write(folder, live, roots, live.photos, live.removals, frozenset(order))
        folder.clean(*kept(written), building=None)
        return _report(generation, written, 0)


def _write(
    folder: IndexFolder,
    live: LiveState,
    roots: Sequence[Root],
    entries: Sequence[Photo],
    removals: Removals,
    new: frozenset[str],
) -> Generation:
    """The next generation, of the live one's rows and clusters; ``new`` are the contents to write again."""
    assert live.generation is not None
    manifest = live.generation.manifest
    rows = Rows({entry.id: open_segment(folder.segment(entry.id)) for entry in manifest.segments})
    order = shown_order(entries)
    refs: Mapping[str, RowRef] = {name: live.rows[name][0] for name in order}
    clusters = {name: live.rows[name][1] for name in order}
    centroids = read_centroids(live.generation.path / "clusters.faiss")
    writer = GenerationWriter(folder, _KEY, manifest.origin, manifest.embedder, roots)
    written = writer.write(Contents(entries, removals, rows, refs, Clustering(centroids, clusters, new)), live)
    shutil.rmtree(folder.building(_KEY), ignore_errors=True)
    return written


def _places(targets: Sequence[str | Path], photos: Sequence[Photo], roots: Sequence[Root]) -> list[tuple[int, str]]:
    """What the targets stand for, as roots and paths in them; '' is a whole root."""
    names = [root.name for root in roots]
    known = {(photo.root, part) for photo in photos if photo.status != "gone" for part in _with_folders(photo.path)}
    shown = {shown_path(names, root, path).rstrip("/"): (root, path) for root, path in known}
    # Nobody means the whole of a gallery by "/".
    shown.pop("", None)
    found: list[tuple[int, str]] = []
    for target in targets:
        if isinstance(target, str) and _ID.fullmatch(target):
            content = next((p.hash for p in photos if p.id == int(target) and p.status == "indexed"), None)
            if content is None:
                raise BadInvocation(f"no photo has the id {target}.")
            found += [(p.root, p.path) for p in photos if p.status == "indexed" and p.hash == content]
            continue
        place = shown.get(str(target).rstrip("/")) or locate(Path(target), roots)
        if place not in known:
            raise BadInvocation(
                f"the index has no photo at {target}; name one as results show it, or a folder of them."
            )
        found.append(place)
    return found


def _with_folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts) + 1)]


def _listed(photos: Sequence[Photo]) -> int:
    return sum(photo.status != "gone" for photo in photos)


def _report(before: Generation, after: Generation, files: int) -> UpkeepReport:
    old, new = before.manifest, after.manifest
    size = {e.id: sum(file.size for file in e.files) for e in (*old.segments, *new.segments)}
    return UpkeepReport(
        generation=after.name,
        changed=after.name != before.name,
        photos=new.counts.photos,
        files=files,
        segments=len(new.segments),
        rows=new.counts.rows,
        dropped=old.counts.rows - new.counts.rows,
        freed=sum(size[e.id] for e in old.segments) - sum(size[e.id] for e in new.segments),
    )

"""Removal: photos are taken out of the index, and their files stay where they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indexer.building import LiveState, live_roots, shown_ids
from indexer.errors import BadInvocation
from indexer.store import (
    CatalogFile,
    FileKey,
    IndexFolder,
    Root,
    live_generation,
    locate,
    names_in_use,
    previous_generation,
    shown_path,
)
from indexer.upkeep.rewriting import UpkeepReport, write_next

_ID = re.compile(r"\d+")


def remove(targets: Sequence[str | Path], index: Path) -> UpkeepReport:
    """Take photos out of the index. Later builds leave them out too, until ``add`` names them.

    Args:
        targets: ids, which stand for all files of a photo; paths of files and folders, as results show them; or paths
            on disk. A folder stands for all below it, now and later. A whole root leaves the gallery.

    Raises:
        BadInvocation: the index has no such photo, or none would be left; or as IndexUnwritable, its folder cannot be
            written. IndexBusy: a build is writing this index.
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    folder = IndexFolder(index)
    # Before the lock, which would make a folder where there is no index.
    live_generation(folder)
    with folder.writing():
        before = live_generation(folder)
        roots = live_roots(before.manifest)
        live = LiveState.read(before, roots)
        removals = live.removals
        leaving: set[int] = set()
        for root, path in _locations(targets, live.files, roots):
            if path:
                removals = removals.removing(root, path)
            else:
                leaving.add(root)
        staying = [root for number, root in enumerate(roots) if number not in leaving]
        numbers = [None if number in leaving else staying.index(root) for number, root in enumerate(roots)]
        removals = removals.renumbered(numbers)
        renumbered = LiveState.read(before, staying)
        entries = [
            replace(file, status="gone", reason=None) if removals.hides(file.root, file.path) else file
            for file in renumbered.files
        ]
        if not shown_ids(entries):
            raise BadInvocation("no photo would be left; to have done with an index, delete its folder.")
        folder.clean(*names_in_use(before, previous_generation(folder, before)), building=None)
        after = write_next(folder, before, renumbered, staying, entries, removals)
        folder.clean(*names_in_use(after, previous_generation(folder, after)), building=None)
        return UpkeepReport.of(before, after, _not_gone(live.files) - _not_gone(entries))


def _locations(targets: Sequence[str | Path], files: Sequence[CatalogFile], roots: Sequence[Root]) -> list[FileKey]:
    """The files and folders that the targets stand for."""
    names = [root.name for root in roots]
    known = {(file.root, part) for file in files if file.status != "gone" for part in _with_folders(file.path)}
    by_shown_path = {shown_path(names, root, path).rstrip("/"): (root, path) for root, path in known}
    # The shown path of a single root. Nobody means the whole gallery by "/".
    by_shown_path.pop("", None)
    found: list[FileKey] = []
    for target in targets:
        if isinstance(target, str) and _ID.fullmatch(target):
            content = next((file.shown_content for file in files if file.id == int(target)), None)
            if content is None:
                raise BadInvocation(f"no photo has the id {target}.")
            found += [(file.root, file.path) for file in files if file.shown_content == content]
            continue
        location = by_shown_path.get(str(target).rstrip("/")) or locate(Path(target), roots)
        if location is None or location not in known:
            raise BadInvocation(
                f"the index has no photo at {target}; name one as results show it, or a folder of them."
            )
        found.append(location)
    return found


def _with_folders(path: str) -> list[str]:
    """The root, '', then each folder around the file from the outermost, then the file itself."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts) + 1)]


def _not_gone(files: Sequence[CatalogFile]) -> int:
    return sum(file.status != "gone" for file in files)

"""Summarises an index, and watches the files of its gallery."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from indexer.building import BadFile, FolderListing, live_roots
from indexer.store import (
    Drift,
    Folder,
    IndexFolder,
    Manifest,
    generation_files,
    live_generation,
    live_generation_if_any,
    shown_path,
)


class IndexSummary(BaseModel):
    """A summary of the live generation of an index.

    Attributes:
        path: the index's folder. generation: the name. bytes_on_disk: the size of its files.
        manifest: describes the generation.
        bad: files that cannot be indexed. removed: files and folders that the user removed, by the paths users see.
        drift: how well the clusters fit the photos.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    generation: str
    bytes_on_disk: int
    manifest: Manifest
    bad: tuple[BadFile, ...]
    removed: tuple[str, ...]
    drift: Drift


def indexed_folders(path: Path) -> list[Folder]:
    """Lists the folders that an index has; none if there is no index. Raises as ``read_summary`` does."""
    live = live_generation_if_any(IndexFolder(path))
    return [] if live is None else [root.folder for root in live_roots(live.manifest)]


def read_summary(path: Path) -> IndexSummary:
    """Say what an index holds.

    Raises:
        IndexRefused: there is no index, it has another format, or a file is missing or short.
    """
    folder = IndexFolder(path)
    live = live_generation(folder)
    names = live.manifest.root_names
    with live.open_catalog() as catalog:
        bad = [BadFile(shown_path(names, file.root, file.path), file.reason or "") for file in catalog.bad()]
        removed = [shown_path(names, *place) for place, removed in sorted(catalog.removals().rules.items()) if removed]
        drift = catalog.drift()
    return IndexSummary(
        path=folder.path,
        generation=live.name,
        bytes_on_disk=sum(entry.size for _, entry in generation_files(folder, live.manifest)),
        manifest=live.manifest,
        bad=tuple(bad),
        removed=tuple(removed),
        drift=drift,
    )


# After this many pauses the index is brought up to date even if the gallery keeps changing.
PATIENCE = 6


def gallery_state(index: Path) -> str:
    """Digests the names, sizes and times of all image files of an index's gallery. It changes with any of them.

    Raises:
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    folder = IndexFolder(index)
    digest = hashlib.sha256()
    roots = live_roots(live_generation(folder).manifest)
    for file in FolderListing(roots, folder.path):
        digest.update(f"{file.root}/{file.path}\0{file.stamp}\0".encode())
    return digest.hexdigest()


def watch(read_state: Callable[[], str], update: Callable[[], bool], pauses: Iterable[object]) -> None:
    """Bring the index up to date whenever the gallery has changed and then stayed the same for one pause.

    Args:
        read_state: gives the gallery's state, as ``gallery_state`` does.
        update: brings the index up to date. If it returns False, it is called again after the next pause.
        pauses: waits once each time it is asked for its next item. Watching ends when it ends.
    """
    last: str | None = None
    indexed: str | None = None
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

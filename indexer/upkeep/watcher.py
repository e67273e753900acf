"""Watching a gallery: its files' names, sizes and times are read again and again, which works on every file system."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from indexer.building import list_photos, live_roots
from indexer.store import IndexFolder, live_generation

# A gallery that changes all the time is brought up to date after so many pauses all the same.
PATIENCE = 6


def gallery_state(index: Path) -> str:
    """A digest of the names, sizes and times of all image files of an index's gallery. It changes with any of them.

    Raises:
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    folder = IndexFolder(index)
    digest = hashlib.sha256()
    roots = live_roots(live_generation(folder).manifest)
    for file in list_photos(roots, folder.path).files:
        digest.update(f"{file.root}/{file.path}\0{file.stamp}\0".encode())
    return digest.hexdigest()


def watch(read_state: Callable[[], str], update: Callable[[], bool], pauses: Iterable[object]) -> None:
    """Bring the index up to date whenever the gallery has changed and then stayed the same for one pause.

    Args:
        read_state: gives the gallery's state, as ``gallery_state`` does.
        update: brings the index up to date. Where it returns False, it is called again after the next pause.
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
            # The state from before the update, so that what changes during the update is seen after the next pause.
            indexed = now if update() else None

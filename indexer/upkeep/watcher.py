"""Watching a gallery by looking at its names, sizes and times again and again: works on every file system."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from indexer.building import live_roots
from indexer.store import IndexFolder, live_generation, walk

# A gallery that never rests is brought up to date after so many looks anyway.
PATIENCE = 6


def look(index: Path) -> str:
    """A digest of all image files of an index's gallery, by name, size and time: another one, if any has changed.

    Raises:
        IndexRefused: there is no index, or it is newer or damaged.
    """
    folder = IndexFolder(index)
    digest = hashlib.sha256()
    roots = live_roots(live_generation(folder).manifest)
    for file in walk(roots, folder.path).files:
        digest.update(f"{file.root}/{file.path}\0{file.size}\0{file.mtime}\0".encode())
    return digest.hexdigest()


def watch(look: Callable[[], str], update: Callable[[], bool], pauses: Iterable[object]) -> None:
    """Update whenever the gallery has changed and then rested for one pause, until the pauses end.

    Args:
        look: tells the gallery's state. update: brings the index up to date; False where it could not, and is to be
            asked again after the next pause. pauses: waits between looks, each time it is asked for its next.
    """
    last = done = ""
    unrest = 0
    for _ in pauses:
        now = look()
        # A file that is being copied is better read when it is whole.
        unrest = unrest + 1 if now != last else 0
        last = now
        if now != done and (unrest == 0 or unrest >= PATIENCE):
            unrest = 0
            # The state before: what changes while the update reads is seen at the next look.
            done = now if update() else ""

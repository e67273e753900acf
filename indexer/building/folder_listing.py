"""The image files below the gallery's folders, by name, size and times; no file is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.store import FileKey, FileStamp, Removals, Root, printable_name, shown_path
from model.images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class FoundFile:
    """An image file below a root.

    Attributes:
        root: which root, counted from 0.
        path: relative to the root, with '/'; bytes of the name that are not Unicode are written as escapes.
        stamp: its size and times; None where the system would not tell them.
        reason: why it cannot be indexed, where that is known before it is opened.
    """

    root: int
    path: str
    stamp: FileStamp | None
    reason: str | None = None

    @property
    def key(self) -> FileKey:
        """Where it is in the gallery."""
        return self.root, self.path


@dataclass(frozen=True)
class BadFile:
    """A file or folder that could not be used, by its path as users see it, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class FolderListing:
    """What is in a gallery.

    Attributes:
        files: the image files, in the order of their shown paths.
        unlisted: the folders that could not be listed. unlisted_keys: where these are.
    """

    files: tuple[FoundFile, ...]
    unlisted: tuple[BadFile, ...]
    unlisted_keys: frozenset[FileKey] = frozenset()

    def may_hide(self, file: FileKey) -> bool:
        """Whether the file lies below a folder that could not be listed, so that it may still be there."""
        root, path = file
        parts = path.split("/")[:-1]
        folders = ("/".join(parts[:end]) for end in range(len(parts) + 1))
        return any((root, folder) in self.unlisted_keys for folder in folders)


def list_photos(roots: Sequence[Root], index: Path, removals: Removals | None = None) -> FolderListing:
    """Walk through the roots. Links, hidden names, the index itself and what was removed are left out."""
    files: list[FoundFile] = []
    unlisted: list[BadFile] = []
    unlisted_keys: set[FileKey] = set()
    names = [root.name for root in roots]
    index = index.resolve()
    for number, root in enumerate(roots):
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(root.path / folder) as listing:
                    entries = list(listing)
            except OSError as error:
                shown = shown_path(names, number, printable_name(folder))
                unlisted_keys.add((number, printable_name(folder)))
                unlisted.append(BadFile(shown, f"the folder cannot be read: {error.strerror}"))
                continue
            for entry in entries:
                if entry.name.startswith(".") or entry.is_symlink():
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if Path(entry.path) != index:
                        folders.append(path)
                elif entry.is_file(follow_symlinks=False) and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    files.append(_found(number, path, entry))
    if removals is not None:
        files = [file for file in files if not removals.hides(file.root, file.path)]
    files.sort(key=lambda file: shown_path(names, file.root, file.path))
    return FolderListing(tuple(files), tuple(sorted(unlisted, key=lambda bad: bad.path)), frozenset(unlisted_keys))


def _found(root: int, path: str, entry: os.DirEntry[str]) -> FoundFile:
    shown = printable_name(path)
    reason = None if shown == path else "its name is not valid UTF-8; rename it to have it indexed"
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return FoundFile(root, shown, None, f"it cannot be read: {error.strerror}")
    return FoundFile(root, shown, FileStamp.of(status), reason)

"""The photos on disk: the folders named by the user, and the image files below them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import BadInvocation
from indexer.store.removals import Removals
from model.images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Root:
    """One folder of the gallery: its absolute path, and the name its photos' paths begin with among several roots."""

    name: str
    path: Path


@dataclass(frozen=True)
class FoundFile:
    """An image file below a root, as the walk saw it.

    Attributes:
        root: which root, counted from 0.
        path: relative to the root, '/'-separated; undecodable bytes of its name are written as escapes.
        size: bytes. mtime: ns.
        reason: why it cannot be indexed, where its name alone says so.
    """

    root: int
    path: str
    size: int
    mtime: int
    reason: str | None = None


@dataclass(frozen=True)
class BadFile:
    """A file or folder that could not be used, by its path as it is shown, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Gallery:
    """What a walk found: files in the order of their shown paths, and folders that could not be listed."""

    files: tuple[FoundFile, ...]
    unlisted: tuple[BadFile, ...]


def resolve_roots(folders: Sequence[Path], index: Path, live: Sequence[Root] = ()) -> tuple[Root, ...]:
    """Check the folders and give each a name of its own.

    Args:
        live: the roots that the index has. Those named again keep name and place, since readers may remap by it; new
            ones come after them.

    Raises:
        BadInvocation: none given, one is missing or no folder, one holds another, or one lies inside the index.
    """
    if not folders:
        raise BadInvocation("name at least one folder of photos.")
    index = index.resolve()
    paths: list[Path] = []
    for folder in folders:
        path = folder.expanduser().resolve()
        if not path.is_dir():
            problem = "is not a folder" if path.exists() else "does not exist"
            raise BadInvocation(f"{folder} {problem}; name a folder of photos.")
        if path.is_relative_to(index):
            raise BadInvocation(f"{folder} lies inside the index {index}; name the folder that holds the photos.")
        for other in paths:
            if path.is_relative_to(other) or other.is_relative_to(path):
                raise BadInvocation(f"{path} and {other} overlap; name only the outer one.")
        paths.append(path)
    roots = [root for root in live if root.path in paths]
    taken = {root.name for root in roots}
    for path in paths:
        if path in {root.path for root in roots}:
            continue
        stem = _shown(path.name) or "root"
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name)
        roots.append(Root(name, path))
    return tuple(roots)


def locate(path: Path, roots: Sequence[Root]) -> tuple[int, str] | None:
    """The root that ``path`` lies in, and where in it, '/'-separated and '' for the root itself; None for neither."""
    # The last step is not followed where it is a link: the index has none.
    full = Path(os.path.abspath(path.expanduser()))
    full = full.parent.resolve() / full.name
    for number, root in enumerate(roots):
        if full.is_relative_to(root.path):
            inside = full.relative_to(root.path).as_posix()
            return number, "" if inside == "." else _shown(inside)
    return None


def shown_path(names: Sequence[str], root: int, path: str) -> str:
    """A photo's path as users see it: with the root's name in front where there are several roots."""
    return f"{names[root]}/{path}" if len(names) > 1 else path


def walk(roots: Sequence[Root], index: Path, removals: Removals | None = None) -> Gallery:
    """All image files below the roots, but for those removed. Links, hidden names and the index are passed over."""
    files: list[FoundFile] = []
    unlisted: list[BadFile] = []
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
                shown = shown_path(names, number, _shown(folder))
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
    return Gallery(tuple(files), tuple(sorted(unlisted, key=lambda bad: bad.path)))


def _found(root: int, path: str, entry: os.DirEntry[str]) -> FoundFile:
    shown = _shown(path)
    reason = None if shown == path else "its name is not valid UTF-8; rename it to have it indexed"
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return FoundFile(root, shown, -1, 0, f"it cannot be read: {error.strerror}")
    return FoundFile(root, shown, status.st_size, status.st_mtime_ns, reason)


def _shown(name: str) -> str:
    """A file name that every database and terminal can hold; unchanged where it is valid Unicode."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")

"""The image files below the gallery's folders, by name, size and times.

Only files whose names have no ending are opened, to see whether they begin as an image does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import BadInvocation
from indexer.store import FileKey, FileStamp, GalleryFile, Removals, Root, read_part, shown_path, text_of_name
from model.images import IMAGE_SUFFIXES, media_type
from model.terminal import resolved

# Bytes of a file that tell its type.
_START = 512
# Endings of names that a report tells.
_NAMED = 5


@dataclass(frozen=True)
class BadFile:
    """A file or folder that could not be used, by its path as users see it, and why."""

    path: str
    reason: str


def bad_files(entries: Iterable[GalleryFile], names: Sequence[str]) -> tuple[BadFile, ...]:
    """The files of a catalog that could not be used, by path. names: of the roots."""
    bad = [BadFile(shown_path(names, file.root, file.path), file.reason) for file in entries if file.reason]
    return tuple(sorted(bad, key=lambda file: file.path))


@dataclass(frozen=True)
class Skipped:
    """The entries that a listing passed over.

    Attributes:
        links: how many symbolic links. endings: how many files that are no images, by the ending of their names in
            lower case ("" for those without), the most frequent first. special: how many pipes, sockets and devices.
    """

    links: int = 0
    endings: tuple[tuple[str, int], ...] = ()
    special: int = 0

    def describe(self) -> list[str]:
        """One sentence for each kind of entry that was passed over, with the reason."""
        words = []
        if self.links:
            words.append(f"{self.links} symbolic link{'s' * (self.links > 1)}, not followed; name the folders instead")
        if number := sum(count for _, count in self.endings):
            named = [f"{count} {ending or 'without an ending'}" for ending, count in self.endings[:_NAMED]]
            if rest := sum(count for _, count in self.endings[_NAMED:]):
                named.append(f"{rest} others")
            words.append(f"{number} file{'s' * (number > 1)} of other types: {', '.join(named)}")
        if self.special:
            words.append(f"{self.special} that {'are' if self.special > 1 else 'is'} no file: a pipe, socket or device")
        return words


@dataclass(frozen=True)
class FolderListing:
    """The image files of a gallery.

    Attributes:
        files: the image files, in the order of their shown paths.
        unlisted: the folders that could not be listed. unlisted_keys: where these are.
        skipped: what else is there.
    """

    files: tuple[GalleryFile, ...]
    unlisted: tuple[BadFile, ...]
    unlisted_keys: frozenset[FileKey] = frozenset()
    skipped: Skipped = Skipped()

    def may_hide(self, file: FileKey) -> bool:
        """Whether the file lies below a folder that could not be listed, so that it may still be there."""
        root, path = file
        parts = path.split("/")[:-1]
        folders = ("/".join(parts[:end]) for end in range(len(parts) + 1))
        return any((root, folder) in self.unlisted_keys for folder in folders)


def list_photos(
    roots: Sequence[Root], index: Path, removals: Removals | None = None, expected: Set[int] = frozenset()
) -> FolderListing:
    """Walk through the roots. Links, hidden names, the index itself and what was removed are left out.

    Args:
        expected: the numbers of the roots in which files are known. Where nothing is left in such a root, its disk may
            not be mounted, and it counts as a folder that could not be listed.
    """
    walk = _Walk([root.name for root in roots], resolved(index), removals or Removals())
    for number, root in enumerate(roots):
        walk.through(number, root, expect_files=number in expected)
    walk.files.sort(key=lambda file: shown_path(walk.names, file.root, file.path))
    unlisted = tuple(sorted(walk.unlisted, key=lambda bad: bad.path))
    return FolderListing(
        tuple(walk.files),
        unlisted,
        frozenset(walk.unlisted_keys),
        Skipped(walk.links, tuple(sorted(walk.endings.items(), key=lambda item: (-item[1], item[0]))), walk.special),
    )


def list_gallery(roots: Sequence[Root], index: Path, removals: Removals, known: Sequence[GalleryFile]) -> FolderListing:
    """List the image files of a gallery for a build.

    Args:
        known: the files of the generation that the build goes on from.

    Raises:
        BadInvocation: there is nothing to index.
    """
    there = [file for file in known if not file.gone]
    listing = list_photos(roots, index, removals, {file.root for file in there})
    if not listing.files and not any(listing.may_hide((file.root, file.path)) for file in there):
        if listing.unlisted:
            raise BadInvocation("; ".join(f"{bad.path}: {bad.reason}" for bad in listing.unlisted) + ".")
        links = " (symbolic links are not followed)" if listing.skipped.links else ""
        folders = ", ".join(str(root.path) for root in roots)
        raise BadInvocation(f"there are no image files in {folders}{links}; name a folder of photos.")
    return listing


class _Walk:
    """A walk through roots: it collects the files, and counts what it passes over."""

    def __init__(self, names: Sequence[str], index: Path, removals: Removals) -> None:
        self.names = names
        self.files: list[GalleryFile] = []
        self.unlisted: list[BadFile] = []
        self.unlisted_keys: set[FileKey] = set()
        self.links = 0
        self.special = 0
        self.endings: Counter[str] = Counter()
        self._index = index
        self._removals = removals

    def through(self, number: int, root: Root, expect_files: bool) -> None:
        """Look at everything in one root."""
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(root.path / folder) as listing:
                    entries = [entry for entry in listing if not entry.name.startswith(".")]
            except OSError as error:
                self._leave_out(number, root, folder, f"the folder cannot be read: {error.strerror}")
                continue
            if expect_files and not folder and not entries:
                self._leave_out(number, root, folder, "the folder is empty, as when its disk is not mounted")
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if Path(entry.path) != self._index:
                        folders.append(path)
                elif not self._removals.hides(number, text_of_name(path)):
                    self._look_at(number, root, path, entry)

    def _leave_out(self, number: int, root: Root, folder: str, reason: str) -> None:
        text = text_of_name(folder)
        self.unlisted_keys.add((number, text))
        self.unlisted.append(BadFile(shown_path(self.names, number, text) if folder else str(root.path), reason))

    def _look_at(self, number: int, root: Root, path: str, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink():
            self.links += 1
        elif entry.is_file(follow_symlinks=False):
            ending = Path(entry.name).suffix.lower()
            if ending in IMAGE_SUFFIXES or (not ending and _is_image(root, path)):
                self.files.append(_found(number, text_of_name(path), entry))
            else:
                self.endings[text_of_name(ending)] += 1
        else:
            self.special += 1


def _is_image(root: Root, path: str) -> bool:
    try:
        return media_type(read_part(root.path, text_of_name(path), _START)) is not None
    except OSError:
        return False


def _found(root: int, path: str, entry: os.DirEntry[str]) -> GalleryFile:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return GalleryFile(root, path, None, reason=f"it cannot be read: {error.strerror}")
    return GalleryFile(root, path, FileStamp.of(status))

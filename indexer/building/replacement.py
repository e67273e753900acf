"""What a build with other folders than before takes out of the index, and which folders were only renamed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.building.request import Request, live_roots
from indexer.store import FileStamp, GalleryFile, IndexFolder, Root, live_generation_if_any, name_of_text, read_catalog


@dataclass(frozen=True)
class Move:
    """A folder of the index that is gone, and a new one that has its files.

    Attributes:
        old, new: the folders. files: how many of the old one's files the new one has, by path, size and time. of: of
            how many.
    """

    old: Path
    new: Path
    files: int
    of: int


@dataclass(frozen=True)
class Replacement:
    """What a build takes out of the index because its folders are not named.

    Attributes:
        leaving: the folders, and how many files each has. of: how many files the index has.
        moves: those of them that were probably renamed.
    """

    leaving: tuple[tuple[Path, int], ...]
    of: int
    moves: tuple[Move, ...]

    @property
    def files(self) -> int:
        """How many files leave."""
        return sum(files for _, files in self.leaving)


def find_replacement(request: Request, index: Path) -> Replacement:
    """Compare the folders that are asked for with those of the index. No photo is read.

    Raises:
        BadInvocation: as ``Request.roots`` does. IndexRefused: the index has another format or is damaged.
    """
    live = live_generation_if_any(IndexFolder(index))
    if live is None:
        return Replacement((), 0, ())
    before = live_roots(live.manifest, request.moved)
    after = {root.path for root in request.roots(index, live.manifest)}
    there = [file for file in read_catalog(live.path / "photos.sqlite") if not file.gone]
    files = [[file for file in there if file.root == number] for number in range(len(before))]
    absent = [number for number, root in enumerate(before) if root.path not in after]
    new = sorted(after - {root.path for root in before})
    moves = (_move(before[number], files[number], new) for number in absent if not before[number].path.is_dir())
    return Replacement(
        tuple((before[number].path, len(files[number])) for number in absent),
        len(there),
        tuple(move for move in moves if move is not None),
    )


def _move(root: Root, files: Sequence[GalleryFile], new: Sequence[Path]) -> Move | None:
    """Where the folder is now: the first that has the most of its files, and half of them at least."""
    moves = [Move(root.path, folder, sum(_is_at(folder, file) for file in files), len(files)) for folder in new]
    best = max(moves, key=lambda move: move.files, default=None)
    return best if best is not None and best.files and best.files * 2 >= best.of else None


def _is_at(folder: Path, file: GalleryFile) -> bool:
    with suppress(OSError, ValueError):
        status = (folder / name_of_text(file.path)).lstat()
        here = FileStamp.of(status)
        return file.stamp is not None and (here.size, here.mtime) == (file.stamp.size, file.stamp.mtime)
    return False

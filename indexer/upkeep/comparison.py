"""The photos' files, compared with what was indexed: which are no longer the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.building import live_roots
from indexer.store import (
    FileChanging,
    GalleryFile,
    IndexFolder,
    Root,
    live_generation,
    read_below,
    read_catalog,
    shown_path,
)


@dataclass(frozen=True)
class Comparison:
    """What comparing the files with the index has shown.

    Attributes:
        files: how many were to be compared. problems: one sentence for each that is not what was indexed.
        absent: the folders of the gallery that are not there, so that their files could not be compared.
    """

    files: int
    problems: tuple[str, ...]
    absent: tuple[str, ...]


def compare(path: Path, seen: Callable[[int, int], None] = lambda done, total: None) -> Comparison:
    """Read every indexed file and compare it with what was indexed, whatever its size and times say.

    Args:
        seen: is called after each file with the number of files done, and of all.

    Raises:
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    live = live_generation(IndexFolder(path))
    roots = live_roots(live.manifest)
    names = [root.name for root in roots]
    there = [root.path.is_dir() for root in roots]
    files = [
        file
        for file in read_catalog(live.path / "photos.sqlite", roots=len(live.manifest.roots))
        if file.status == "indexed"
    ]
    problems: list[str] = []
    for number, file in enumerate(files, 1):
        if there[file.root] and (problem := _difference(file, roots)) is not None:
            problems.append(f"{shown_path(names, file.root, file.path)} {problem}.")
        seen(number, len(files))
    absent = tuple(
        f"{root.path} is not there: its {sum(file.root == number for file in files)} files were not compared."
        for number, root in enumerate(roots)
        if not there[number]
    )
    return Comparison(len(files), tuple(problems), absent)


def _difference(file: GalleryFile, roots: Sequence[Root]) -> str | None:
    """How a file differs from what was indexed; None where it does not."""
    try:
        data = read_below(roots[file.root].path, file.path).data
    except FileChanging:
        return "is changing right now"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    same = hashlib.sha256(data).hexdigest() == file.content_hash
    return None if same else "has changed since it was indexed"

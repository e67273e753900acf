"""Compares an index with the hashes of its files, and the photos with what was indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.building import live_roots
from indexer.errors import REPAIR, no_index
from indexer.store import (
    FileChanging,
    GalleryFile,
    IndexFolder,
    Root,
    damaged_files,
    live_generation,
    readable_generations,
    shown_path,
)


def verify(path: Path) -> list[str]:
    """Reads every file of the live generation, and compares it with the hash that was written down.

    Returns:
        what is wrong, one sentence each; nothing for a sound index. The next build makes it anew.

    Raises:
        IndexRefused: there is no index, it has another format, or nothing of it can be used.
    """
    folder = IndexFolder(path)
    problems: list[str] = []
    for generation in readable_generations(folder, problems):
        return problems or [
            f"{sentence[:-1]}; {REPAIR}." for sentence in damaged_files(folder, generation.manifest).values()
        ]
    raise no_index(folder.path)


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing the files with the index.

    Attributes:
        files: how many were to be compared. problems: one sentence for each file that is not what was indexed.
        absent: the folders of the gallery that are not there, so that their files could not be compared.
    """

    files: int
    problems: tuple[str, ...]
    absent: tuple[str, ...]


def compare(path: Path, seen: Callable[[int, int], None] = lambda done, total: None) -> Comparison:
    """Reads every indexed file, and compares it with what was indexed, whatever its size and times say.

    Args:
        seen: is called after each file with the number of files done, and the number of all files.

    Raises:
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    live = live_generation(IndexFolder(path))
    roots = live_roots(live.manifest)
    names = [root.name for root in roots]
    there = [root.folder.is_there() for root in roots]
    with live.open_catalog() as catalog:
        files = [file for file in catalog.files() if file.status == "indexed"]
    problems: list[str] = []
    for number, file in enumerate(files, 1):
        if there[file.root] and (problem := _difference(file, roots)) is not None:
            problems.append(f"{shown_path(names, file.root, file.path)} {problem}.")
        seen(number, len(files))
    absent = tuple(
        f"{root.folder} is not there: its {sum(file.root == number for file in files)} files were not compared."
        for number, root in enumerate(roots)
        if not there[number]
    )
    return Comparison(len(files), tuple(problems), absent)


def _difference(file: GalleryFile, roots: Sequence[Root]) -> str | None:
    """Says how a file differs from what was indexed; None if it does not differ."""
    try:
        data = roots[file.root].folder.read(file.path).data
    except FileChanging:
        return "is changing right now"
    except FileNotFoundError:
        return "is not there any more"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    same = hashlib.sha256(data).hexdigest() == file.content_hash
    return None if same else "has changed since it was indexed"

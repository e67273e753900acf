"""Generations: complete states of an index. Read with every file checked for presence and size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import REPAIR, IndexRefused
from indexer.store.location import IndexFolder
from indexer.store.manifest import FileEntry, Manifest, read_manifest


@dataclass(frozen=True)
class Generation:
    """A generation on disk: its name, its folder, and its manifest."""

    name: str
    path: Path
    manifest: Manifest


def live_generation(folder: IndexFolder) -> Generation:
    """The generation that readers are to use.

    Raises:
        IndexRefused: there is none yet, or it is of a newer format, damaged or incomplete.
    """
    name = folder.current()
    if name is None:
        raise IndexRefused(f"there is no index at {folder.path}; run `python -m indexer build FOLDER` first.")
    while True:
        try:
            return open_generation(folder, name)
        except IndexRefused:
            # Two builds may have ended since CURRENT was read, and the generation it named may be deleted.
            latest = folder.current()
            if latest is None or latest == name:
                raise
            name = latest


def open_generation(folder: IndexFolder, name: str) -> Generation:
    """A generation by name, all of its files there and of the right size.

    Raises:
        IndexRefused: newer format, damaged manifest, a missing or short file.
    """
    path = folder.generation(name)
    manifest = read_manifest(path / "manifest.json")
    for file, entry in generation_files(folder, manifest):
        try:
            size = file.stat().st_size
        except OSError as error:
            raise IndexRefused(f"{file} is missing; {REPAIR}.") from error
        if size != entry.size:
            raise IndexRefused(f"{file} has {size} bytes instead of {entry.size}; {REPAIR}.")
    return Generation(name, path, manifest)


def kept(*generations: Generation | None) -> tuple[set[str], set[str]]:
    """The generations and segments that must not be deleted while these are needed: they, and all that they use."""
    there = [generation for generation in generations if generation is not None]
    segments = {segment.id for generation in there for segment in generation.manifest.segments}
    return {generation.name for generation in there}, segments


def previous(folder: IndexFolder, generation: Generation | None) -> Generation | None:
    """The generation before, which readers may still be opening; None where there is none or it is not whole."""
    if generation is None or generation.manifest.previous is None:
        return None
    try:
        return open_generation(folder, generation.manifest.previous)
    except IndexRefused:
        return None


def generation_files(folder: IndexFolder, manifest: Manifest) -> Iterable[tuple[Path, FileEntry]]:
    """Every file a generation needs, its manifest aside, with what the manifest says about it."""
    for entry in manifest.files:
        yield folder.generation(manifest.generation) / entry.name, entry
    for segment in manifest.segments:
        for entry in segment.files:
            yield folder.segment(segment.id) / entry.name, entry

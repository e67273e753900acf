"""Generations: the complete states of an index. Opening one checks that all of its files are there at full size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import REPAIR, IndexRefused, no_index, unreadable
from indexer.store.arrays import RowArrays, RowShape, open_segment
from indexer.store.location import IndexFolder
from indexer.store.manifest import FileEntry, Manifest, SegmentEntry, read_manifest


@dataclass(frozen=True)
class Generation:
    """A generation on disk: its name, its folder, and its manifest."""

    name: str
    path: Path
    manifest: Manifest


def live_generation(folder: IndexFolder) -> Generation:
    """The generation that readers are to use.

    Raises:
        IndexRefused: there is none yet, or it has another format, is damaged or incomplete.
    """
    generation = live_generation_if_any(folder)
    if generation is None:
        raise no_index(folder.path)
    return generation


def live_generation_if_any(folder: IndexFolder) -> Generation | None:
    """The same, or None where nothing has been built yet.

    Raises:
        IndexRefused: it has another format, is damaged or incomplete.
    """
    name = folder.current()
    while name is not None:
        try:
            return open_generation(folder, name)
        except IndexRefused:
            # Two builds may have ended since CURRENT was read, and the second deletes the generation that it named.
            latest = folder.current()
            if latest is None or latest == name:
                raise
            name = latest
    return None


def open_generation(folder: IndexFolder, name: str) -> Generation:
    """Open a generation by name.

    Raises:
        IndexRefused: it has another format, its manifest is damaged, or a file is missing or short.
    """
    path = folder.generation(name)
    manifest = read_manifest(path / "manifest.json")
    for file, entry in generation_files(folder, manifest):
        try:
            size = file.stat().st_size
        except OSError as error:
            raise unreadable(file, error) from error
        if size != entry.size:
            raise IndexRefused(f"{file} has {size} bytes instead of {entry.size}; {REPAIR}.")
    return Generation(name, path, manifest)


def names_in_use(*generations: Generation | None) -> tuple[set[str], set[str]]:
    """The names of these generations, and of all segments that they use: what must not be deleted."""
    needed = [generation for generation in generations if generation is not None]
    segments = {segment.id for generation in needed for segment in generation.manifest.segments}
    return {generation.name for generation in needed}, segments


def previous_generation(folder: IndexFolder, generation: Generation | None) -> Generation | None:
    """The generation before this one, which readers may still be opening; None where it is gone or incomplete."""
    if generation is None or generation.manifest.previous is None:
        return None
    try:
        return open_generation(folder, generation.manifest.previous)
    except IndexRefused:
        return None


def generation_files(folder: IndexFolder, manifest: Manifest) -> Iterable[tuple[Path, FileEntry]]:
    """Every file that a generation needs, without its manifest, and what the manifest says about the file."""
    for entry in manifest.files:
        yield folder.generation(manifest.generation) / entry.name, entry
    for segment in manifest.segments:
        for entry in segment.files:
            yield folder.segment(segment.id) / entry.name, entry


def open_rows(folder: IndexFolder, manifest: Manifest, segment: SegmentEntry) -> RowArrays:
    """Map the arrays of a generation's segment into memory.

    Raises:
        IndexRefused: a file is missing, or is not the array that the manifest says.
    """
    shape = RowShape(segment.rows, manifest.width, manifest.tokens)
    return open_segment(folder.segment(segment.id), shape)

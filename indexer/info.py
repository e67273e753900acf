"""What an index is, for people and machines; needs no network."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from indexer.catalog import Catalog
from indexer.gallery import shown_path
from indexer.generation import generation_files, live_generation
from indexer.location import IndexFolder
from indexer.manifest import Manifest


class BadEntry(BaseModel):
    """A file that could not be indexed, by shown path, and why."""

    model_config = ConfigDict(frozen=True)

    path: str
    reason: str


class IndexInfo(BaseModel):
    """The live generation: where, from what, how large (bytes on disk), and which files it could not use."""

    model_config = ConfigDict(frozen=True)

    path: Path
    generation: str
    bytes_on_disk: int
    manifest: Manifest
    bad: tuple[BadEntry, ...]


def read_info(path: Path) -> IndexInfo:
    """Look into an index.

    Raises:
        IndexRefused: there is none, it is of a newer format, or a file is missing or short.
    """
    folder = IndexFolder(path)
    live = live_generation(folder)
    names = live.manifest.root_names
    with closing(Catalog(live.path / "photos.sqlite")) as catalog:
        bad = [
            BadEntry(path=shown_path(names, photo.root, photo.path), reason=photo.reason or "")
            for photo in catalog.bad()
        ]
    return IndexInfo(
        path=folder.path,
        generation=live.name,
        bytes_on_disk=sum(entry.size for _, entry in generation_files(folder, live.manifest)),
        manifest=live.manifest,
        bad=tuple(bad),
    )

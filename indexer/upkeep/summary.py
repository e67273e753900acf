"""What an index is, for people and machines; needs no network."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from indexer.store import Catalog, Drift, IndexFolder, Manifest, generation_files, live_generation, shown_path


class BadEntry(BaseModel):
    """A file that could not be indexed, by shown path, and why."""

    model_config = ConfigDict(frozen=True)

    path: str
    reason: str


class IndexInfo(BaseModel):
    """The live generation.

    Attributes:
        path: where. manifest: from what. bytes_on_disk: how large.
        bad: files that could not be used. removed: files and folders that were taken out, by shown path.
        drift: how well its clusters fit; None where the program that made them did not measure it.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    generation: str
    bytes_on_disk: int
    manifest: Manifest
    bad: tuple[BadEntry, ...]
    removed: tuple[str, ...]
    drift: Drift | None


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
        removed = [shown_path(names, rule.root, rule.path) for rule in catalog.removals() if rule.removed]
        drift = catalog.drift()
    return IndexInfo(
        path=folder.path,
        generation=live.name,
        bytes_on_disk=sum(entry.size for _, entry in generation_files(folder, live.manifest)),
        manifest=live.manifest,
        bad=tuple(bad),
        removed=tuple(removed),
        drift=drift,
    )

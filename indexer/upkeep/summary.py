"""What an index holds, for people and for machines. No network is needed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from indexer.store import Catalog, Drift, IndexFolder, Manifest, generation_files, live_generation, shown_path


class BadEntry(BaseModel):
    """A file that cannot be indexed, by the path that users see, and why."""

    model_config = ConfigDict(frozen=True)

    path: str
    reason: str


class IndexSummary(BaseModel):
    """The live generation of an index.

    Attributes:
        path: the index's folder. generation: the name. bytes_on_disk: the size of its files.
        manifest: what it was made from.
        bad: files that cannot be indexed. removed: files and folders that the user removed, by the paths users see.
        drift: how well the clusters fit the photos.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    generation: str
    bytes_on_disk: int
    manifest: Manifest
    bad: tuple[BadEntry, ...]
    removed: tuple[str, ...]
    drift: Drift


def read_summary(path: Path) -> IndexSummary:
    """Say what an index holds.

    Raises:
        IndexRefused: there is none, it has another format, or a file is missing or short.
    """
    folder = IndexFolder(path)
    live = live_generation(folder)
    names = live.manifest.root_names
    with closing(Catalog(live.path / "photos.sqlite", roots=len(names))) as catalog:
        bad = [
            BadEntry(path=shown_path(names, file.root, file.path), reason=file.reason or "") for file in catalog.bad()
        ]
        removed = [shown_path(names, rule.root, rule.path) for rule in catalog.removals() if rule.removed]
        drift = catalog.drift()
    return IndexSummary(
        path=folder.path,
        generation=live.name,
        bytes_on_disk=sum(entry.size for _, entry in generation_files(folder, live.manifest)),
        manifest=live.manifest,
        bad=tuple(bad),
        removed=tuple(removed),
        drift=drift,
    )

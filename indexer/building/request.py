"""What a build is asked for, checked before anything slow begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from indexer.errors import BadInvocation
from indexer.store import IndexFolder, Manifest, Root, locate, open_generation, resolve_roots

# As many as four cores encode at once; a second's work, or a few, is all that a kill costs.
DEFAULT_BATCH = 64


@dataclass(frozen=True)
class Request:
    """One build.

    Attributes:
        folders: the whole gallery; none for the folders that the index has.
        added: folders to have besides, and files or folders of the gallery to show again.
        clusters: how many; None for about sqrt(photos), or what the index has.
        embedder: "ret", "clip", "clip:...", or "auto".
        recluster: make the clusters anew, even if their number stays.
        batch: files between two commits of the journal.
    """

    folders: tuple[Path, ...] = ()
    added: tuple[Path, ...] = ()
    clusters: int | None = None
    embedder: str = "auto"
    recluster: bool = False
    batch: int = DEFAULT_BATCH

    def roots(self, index: Path, manifest: Manifest | None) -> tuple[Root, ...]:
        """The roots that the next generation is to have, those of the live one first and as they are.

        Raises:
            BadInvocation: a number is out of range, or folders are missing, no folders, or overlap.
        """
        if self.clusters is not None and self.clusters < 1:
            raise BadInvocation("the number of clusters must be at least 1.")
        if self.batch < 1:
            raise BadInvocation("the batch must be at least 1.")
        live = live_roots(manifest)
        if not self.folders and not live:
            raise BadInvocation(f"there is no index at {index} yet; run `python -m indexer build FOLDER` first.")
        for path in self.added:
            if not path.expanduser().exists():
                raise BadInvocation(f"{path} does not exist; name a folder of photos.")
        new = [path for path in self.added if locate(path, live) is None]
        return resolve_roots([*(self.folders or (root.path for root in live)), *new], index, live)

    def check(self, index: Path) -> None:
        """Find slips of the pen, which should be answered before a network is loaded.

        Raises:
            BadInvocation: as ``roots`` does. IndexRefused: the live index is newer or damaged.
        """
        folder = IndexFolder(index)
        name = folder.current()
        self.roots(folder.path, open_generation(folder, name).manifest if name is not None else None)


def live_roots(manifest: Manifest | None) -> tuple[Root, ...]:
    """The roots that an index has."""
    return tuple(Root(root.name, Path(root.path)) for root in manifest.roots) if manifest is not None else ()

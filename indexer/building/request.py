"""What a build is asked for, checked before anything slow begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import BadInvocation
from indexer.store import INVERTED_FROM, IndexFolder, Manifest, Root, live_generation_if_any, locate, resolve_roots
from model.terminal import expanded

# As many photos as four cores encode at once. What is not committed yet, a second's work or a few, is lost by a kill.
DEFAULT_BATCH = 64


@dataclass(frozen=True)
class Request:
    """One build.

    Attributes:
        folders: all folders of the gallery; none for those that the index has.
        added: folders to add to the gallery, and files or folders in it to show again.
        clusters: how many; None for about sqrt(photos), or for those that the index has.
        embedder: "ret", "clip", "clip:..." or "auto".
        recluster: whether to make the clusters anew even if their number stays.
        checksum: whether to read every file, also those whose size and times are as they were.
        moved: folders of the index that were renamed, old and new. Their files keep their ids.
        batch: files between two commits of the journal.
        inverted_from: from so many photos on the index gets an inverted file, by which it is searched.
    """

    folders: tuple[Path, ...] = ()
    added: tuple[Path, ...] = ()
    clusters: int | None = None
    embedder: str = "auto"
    recluster: bool = False
    checksum: bool = False
    moved: tuple[tuple[Path, Path], ...] = ()
    batch: int = DEFAULT_BATCH
    inverted_from: int = INVERTED_FROM

    def roots(self, index: Path, manifest: Manifest | None) -> tuple[Root, ...]:
        """The roots of the next generation. Those of the live one come first and stay as they are.

        Args:
            index: the index's folder. manifest: of the live generation; None where there is none.

        Raises:
            BadInvocation: a number is out of range; or a folder is missing, is no folder, or overlaps another.
        """
        if self.clusters is not None and self.clusters < 1:
            raise BadInvocation("the number of clusters must be at least 1.")
        if self.batch < 1:
            raise BadInvocation("the batch must be at least 1.")
        live = live_roots(manifest, self.moved)
        if not self.folders and not live:
            raise BadInvocation(f"there is no index at {index} yet; run `sketch-search index build FOLDER` first.")
        for path in self.added:
            if not expanded(path).exists():
                raise BadInvocation(f"{path} does not exist; name a folder of photos.")
        new = [path for path in self.added if locate(path, live) is None]
        return resolve_roots([*(self.folders or (root.path for root in live)), *new], index, live)

    def check(self, index: Path) -> None:
        """Find simple mistakes at once, before a network is loaded.

        Raises:
            BadInvocation: as ``roots`` does. IndexRefused: the live index has another format or is damaged.
        """
        folder = IndexFolder(index)
        live = live_generation_if_any(folder)
        self.roots(folder.path, live.manifest if live is not None else None)


def live_roots(manifest: Manifest | None, moved: Sequence[tuple[Path, Path]] = ()) -> tuple[Root, ...]:
    """The roots that an index has, where they are now; none where there is no index.

    Args:
        moved: old and new paths of those that were renamed. They keep the names that paths begin with.
    """
    now = dict(moved)
    roots = () if manifest is None else manifest.roots
    return tuple(Root(root.name, now.get(Path(root.path), Path(root.path))) for root in roots)

"""The request of a build, the generation that it continues, and the folders that it would drop from the index."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sketch_search.indexer.building.folder_listing import Exclusions
from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.catalog import CATALOG_FILE
from sketch_search.indexer.store.folders import Address, LocalFolder
from sketch_search.indexer.store.generation import (
    Generation,
    Manifest,
    System,
    current_manifest,
    damaged_files,
    read_damaged,
)
from sketch_search.indexer.store.location import IndexFolder, first_build_has_begun, no_index
from sketch_search.indexer.store.roots import Root, folder_of, locate, resolve_roots
from sketch_search.indexer.store.rows import BOXES_FILE
from sketch_search.model.limits import MAX_PIXELS


@dataclass(frozen=True)
class BuildRequest:
    """The request of one build.

    folders: all of the gallery, by path or URL; empty for the indexed ones. added: folders to add, or files and
    folders to show again. excluded, included: patterns to add, and to drop from those of the index.
    clusters: None for those of the index, or about sqrt(photos); another number makes them anew, as recluster does.
    embedder: "ret", "clip", "clip:...", or "auto": as the index, else CLIP if its weights are on this disk.
    tokens: "all", "none" for a small index of vectors alone, or "auto": as the index, else "all".
    system: of plain searches. "two-stage", the report's: 125 clusters, the features of each together. "auto": as the
    index, else "default".
    checksum: whether files of unchanged size and times are read. batch: files between commits, lost by a kill.
    shards: of a build on many machines; None for as many as there are, or one.
    allow_root_removal, allow_loss: whether folders that are not listed, or a tenth of the photos, may be dropped.
    max_new_files: how many are read, unless none is usable; None for all. max_pixels: of a photo, JPEGs aside.
    """

    folders: Sequence[Address] = ()
    added: Sequence[Address] = ()
    excluded: Sequence[str] = ()
    included: Sequence[str] = ()
    clusters: int | None = None
    embedder: str = "auto"
    tokens: Literal["auto", "all", "none"] = "auto"
    system: System | Literal["auto"] = "auto"
    recluster: bool = False
    checksum: bool = False
    batch: int = 64
    shards: int | None = None
    allow_root_removal: bool = True
    allow_loss: bool = False
    max_new_files: int | None = None
    max_pixels: int = MAX_PIXELS

    def roots(self, index: Path, manifest: Manifest | None) -> tuple[Root, ...]:
        """Returns the roots of the next generation, the current ones first. Raises BadInvocation."""
        if self.clusters is not None and self.clusters < 1:
            raise BadInvocation("the number of clusters must be at least 1.")
        current = () if manifest is None else manifest.roots
        if not self.folders and not current:
            if first_build_has_begun(index):
                raise no_index(index)
            if not self.added:
                raise BadInvocation(
                    f"there is no index at {index} yet; run `sketch-search index build FOLDER` first, or "
                    "`sketch-search FOLDER`, which also serves it."
                )
        for path in self.added:
            key = locate(path, current)
            whole = key is None or not key[1] or type(current[key[0]].folder) is LocalFolder
            if whole and folder_of(path).problem() == "does not exist":
                raise BadInvocation(f"{path} does not exist; name a folder of photos.")
        new = [path for path in self.added if locate(path, current) is None]
        roots = resolve_roots([*(self.folders or (root.folder for root in current)), *new], index, current)
        leaving = ", ".join(str(root.folder) for root in current if root not in roots)
        if leaving and not self.allow_root_removal:
            raise BadInvocation(
                f"the index {index} has other folders: {leaving}. List these as well, or list none to update all; "
                "add a new one by `sketch-search index add FOLDER`; use another index with --index DIR; or drop them "
                "by `sketch-search index build FOLDER --yes`: photos that have only moved stay; none is computed again."
            )
        return roots

    def exclusions(self, manifest: Manifest | None) -> Exclusions:
        """Returns the patterns of the next generation, the current ones first. Raises BadInvocation."""
        current = () if manifest is None else manifest.excluded
        for pattern in self.included:
            if pattern not in current:
                there = f"excludes {', '.join(current)}" if current else "has no patterns"
                raise BadInvocation(f"the index does not exclude {pattern!r}; it {there}.")
        return Exclusions([one for one in dict.fromkeys([*current, *self.excluded]) if one not in self.included])

    def check(self, index: Path) -> None:
        """Detects mistakes before a network is loaded. Raises BadInvocation; IndexRefused for an unusable index."""
        folder = IndexFolder(index)
        manifest = current_manifest(folder)
        self.roots(folder.path, manifest)
        self.exclusions(manifest)


@dataclass(frozen=True)
class StartingPoint:
    """The state that a build continues.

    generation: the current one; None if its catalog is damaged. manifest: None before a build. problems: a sentence
    for each damage. damaged: segments to compute again, and BOXES_FILE if the boxes are; lost: a sentence for these.
    """

    generation: Generation | None = None
    manifest: Manifest | None = None
    problems: tuple[str, ...] = ()
    damaged: frozenset[str] = frozenset()
    lost: tuple[str, ...] = ()

    @staticmethod
    def find(folder: IndexFolder) -> "StartingPoint":
        """Looks at the current generation, and at what a verification found. Raises IndexRefused."""
        name, manifest = folder.current(), current_manifest(folder)
        if name is None or manifest is None:
            return StartingPoint()
        damaged = read_damaged(folder, manifest) | damaged_files(folder, manifest)
        path = folder.generation(name)
        boxes = damaged.pop(path / BOXES_FILE, None)
        problems = tuple(damaged.values())
        if path / CATALOG_FILE in damaged:
            problems += ("without a catalog, photos get new ids, and removed ones come back.",)
            return StartingPoint(None, manifest, problems)
        segments = {file.parent.name for file in damaged}
        if path.name in segments:
            # Vectors, clusters and the table of photos belong to the photos of all segments.
            segments = {segment.id for segment in manifest.segments}
        generation, lost = Generation(name, path, manifest), () if boxes is None else (boxes,)
        damaged_parts = frozenset(segments if boxes is None else {*segments, BOXES_FILE})
        return StartingPoint(generation, manifest, problems, damaged_parts, lost)

"""Plans a build before any photo is read: folders, network, embedder, clusters, and what can stay."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sketch_search.indexer.building.database import SCHEMA
from sketch_search.indexer.building.folder_listing import Exclusions
from sketch_search.indexer.errors import BadInvocation, EmbedderUnavailable
from sketch_search.indexer.store import location
from sketch_search.indexer.store.catalog import CATALOG_FILE, Removals
from sketch_search.indexer.store.files import hash_file
from sketch_search.indexer.store.folders import Address, LocalFolder
from sketch_search.indexer.store.generation import (
    FORMAT_VERSION,
    EmbedderEntry,
    Generation,
    IndexSettings,
    Manifest,
    NetworkIdentity,
    find_generation,
)
from sketch_search.indexer.store.rows import BOXES_FILE
from sketch_search.model import Matcher
from sketch_search.model.engine.detector import DETECTOR_NAME
from sketch_search.model.errors import ModelError
from sketch_search.model.limits import MAX_PIXELS, System
from sketch_search.model.search.clusters import MAX_PATCHES

if TYPE_CHECKING:
    from sketch_search.model.torch import ClipEmbedder, TextTower


@dataclass(frozen=True)
class ChosenEmbedder:
    """An embedder. ``load``, called for new photos only, gives None for [Ret], and raises EmbedderUnavailable."""

    entry: EmbedderEntry
    load: "Callable[[], ClipEmbedder | None]"


# Where the weights of ``model.torch.DEFAULT_CLIP`` are published; a test compares them.
DEFAULT_CLIP_REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


def find_embedder(spec: str, device: str, *, download: bool = False) -> ChosenEmbedder:
    """Finds the embedder of ``--embedder``: "auto" is CLIP if it is on this disk. Raises EmbedderUnavailable."""
    if spec == "auto":
        spec = "clip" if _has_clip() else "ret"
    if spec == "ret":
        description = "the checkpoint's own retrieval token, L2-normalised"
        return ChosenEmbedder(
            EmbedderEntry(kind="ret", name="[Ret]", description=description, spec="ret"), lambda: None
        )
    kind, colon, source = spec.partition(":")
    if kind != "clip" or (colon and not source):
        forms = "ret, clip, clip:MODEL/PRETRAINED, clip:MODEL@FILE, clip:FOLDER or auto"
        raise EmbedderUnavailable(f"unknown embedder {spec!r}; use {forms}.")
    with _refuse_if_unavailable():
        from sketch_search.model.torch import DEFAULT_CLIP, find_clip

        clip = find_clip(source or DEFAULT_CLIP, download=download)
    entry = EmbedderEntry(
        kind="clip",
        name=clip.name,
        description=f"image vectors of {clip.name}, by open_clip",
        spec=f"clip:{clip.source}",
        sha256=hashlib.sha256("".join(map(hash_file, clip.files)).encode()).hexdigest(),
    )

    def load() -> "ClipEmbedder":
        from sketch_search.model.torch import ClipEmbedder

        with _refuse_if_unavailable():
            return ClipEmbedder(*clip.open(device), device, clip.model)

    return ChosenEmbedder(entry, load)


def _has_clip() -> bool:
    """Returns True if open_clip is installed and a snapshot of its default model is on this disk, without PyTorch."""
    if find_spec("open_clip") is None:
        return False
    from huggingface_hub import constants

    folder = "--".join(("models", *DEFAULT_CLIP_REPOSITORY.split("/")))
    return any((Path(constants.HF_HUB_CACHE) / folder / "snapshots").glob("*/*.safetensors"))


@contextmanager
def _refuse_if_unavailable() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise EmbedderUnavailable(
            "open_clip is not installed; run `pip install 'sketch-search[clip]'`, or use --embedder ret."
        ) from error
    except ModelError as error:
        raise EmbedderUnavailable(f"{error}, or use --embedder ret.") from error


def open_text_tower(entry: EmbedderEntry, device: str) -> "TextTower":
    """Loads the model that an index was clustered by, from this disk. Raises EmbedderUnavailable."""
    chosen = find_embedder(entry.spec, device)
    if not chosen.entry.same(entry):
        raise EmbedderUnavailable(
            f"{entry.spec} has changed since this index was clustered by it; restore the old model, "
            "or run `sketch-search index build` with --embedder."
        )
    embedder = chosen.load()
    if embedder is None:
        raise EmbedderUnavailable(f"this index was clustered by {entry.name}, not by CLIP.")
    from sketch_search.model.torch import TextTower

    try:
        return TextTower(embedder, entry.name)
    except ModelError as error:
        raise EmbedderUnavailable(f"{error}.") from error


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

    def roots(self, index: Path, manifest: Manifest | None) -> tuple[location.Root, ...]:
        """Returns the roots of the next generation, the current ones first. Raises BadInvocation."""
        if self.clusters is not None and self.clusters < 1:
            raise BadInvocation("the number of clusters must be at least 1.")
        current = () if manifest is None else manifest.roots
        if not self.folders and not current:
            if location.first_build_has_begun(index):
                raise location.no_index(index)
            if not self.added:
                raise BadInvocation(
                    f"there is no index at {index} yet; run `sketch-search index build FOLDER` first, or "
                    "`sketch-search FOLDER`, which also serves it."
                )
        for path in self.added:
            key = location.locate(path, current)
            whole = key is None or not key[1] or type(current[key[0]].folder) is LocalFolder
            if whole and location.folder_of(path).problem() == "does not exist":
                raise BadInvocation(f"{path} does not exist; name a folder of photos.")
        new = [path for path in self.added if location.locate(path, current) is None]
        roots = location.resolve_roots([*(self.folders or (root.folder for root in current)), *new], index, current)
        leaving = ", ".join(root.path for root in current if root not in roots)
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
                state = f"excludes {', '.join(current)}" if current else "has no patterns"
                raise BadInvocation(f"the index does not exclude {pattern!r}; it {state}.")
        excluded = dict.fromkeys([*current, *self.excluded])
        return Exclusions([pattern for pattern in excluded if pattern not in self.included])

    def check(self, index: Path) -> None:
        """Detects mistakes before a network is loaded. Raises BadInvocation; IndexRefused for an unusable index."""
        folder = location.IndexFolder(index)
        current = find_generation(folder, check=False)
        manifest = None if current is None else current.manifest
        self.roots(folder.path, manifest)
        self.exclusions(manifest)


@dataclass(frozen=True)
class Current:
    """The state that a build continues: the current generation, or all current shards.

    catalogs: the generations whose files are taken over, by how the names of their rows' sources begin; none before the
    first build, and if the catalog is damaged. manifest: the first one's; None before a build. removals: by its roots.
    next_id: the lowest that no file has ever had. clusters: how many there are. reusable: whether the same networks
    computed their rows. damaged: segments to compute again, and BOXES_FILE if boxes are to be found again. problems: a
    sentence for each damage.
    """

    catalogs: Mapping[str, Generation] = field(default_factory=dict)
    manifest: Manifest | None = None
    removals: Removals = field(default_factory=Removals)
    next_id: int = 1
    clusters: int = 0
    reusable: bool = True
    damaged: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()

    @property
    def generation(self) -> Generation | None:
        """The current generation of an index that is not in shards."""
        return self.catalogs.get("")

    @property
    def roots(self) -> tuple[location.Root, ...]:
        return () if self.manifest is None else self.manifest.roots

    @property
    def unusable(self) -> frozenset[str]:
        """The damaged parts, or if other networks computed the rows, all segments."""
        names = (name for catalog in self.catalogs.values() for name in catalog.manifest.segment_sizes)
        return self.damaged if self.reusable else frozenset(names)

    def numbers(self, roots: Sequence[location.Root]) -> list[int | None]:
        """Returns the number in ``roots`` of each current root; None for one that leaves."""
        numbers = {root.path: number for number, root in enumerate(roots)}
        return [numbers.get(root.path) for root in self.roots]

    @staticmethod
    def of(generation: Generation) -> "Current":
        """Reads the state of a sound generation, without its files."""
        manifest = generation.manifest
        with generation.open_catalog() as catalog:
            removals = catalog.removals()
        return Current({"": generation}, manifest, removals, manifest.next_id, manifest.counts.clusters)

    @staticmethod
    def find(folder: location.IndexFolder) -> "Current":
        """Looks at the current generation, and at what a verification found. Raises IndexRefused."""
        if (generation := find_generation(folder, check=False)) is None:
            return Current()
        manifest, damaged = generation.manifest, generation.recorded_damage() | generation.damage()
        problems = tuple(damaged.values())
        if generation.path / CATALOG_FILE in damaged:
            problems += ("without a catalog, photos get new ids, and removed ones come back.",)
            return Current(manifest=manifest, next_id=manifest.next_id, problems=problems)
        boxes = generation.path / BOXES_FILE
        segments = {file.parent.name for file in damaged if file != boxes}
        if generation.name in segments:
            # Vectors, clusters and the table of photos belong to the photos of all segments.
            segments = {*manifest.segment_sizes}
        if boxes in damaged:
            segments.add(BOXES_FILE)
        return replace(Current.of(generation), damaged=frozenset(segments), problems=problems)


@dataclass(frozen=True)
class BuildPlan:
    """The decisions of one build.

    settings: of the next generation; their ``computed`` is of those photos that stay. embedder: that of the settings.
    recluster: whether all clusters are computed again. rewrite: whether a generation is written even without changes.
    """

    request: BuildRequest
    current: Current
    settings: IndexSettings
    removals: Removals
    embedder: ChosenEmbedder
    recluster: bool
    rewrite: bool
    shards: int = 1

    @property
    def roots(self) -> tuple[location.Root, ...]:
        return self.settings.roots

    @cached_property
    def exclusions(self) -> Exclusions:
        return Exclusions(self.settings.excluded)

    def was_removed(self, root: int, path: str) -> bool:
        """Returns True if a file stays removed; ``root`` is -1 - its current number if that leaves."""
        return self.removals.hides(root, path) if root >= 0 else self.current.removals.hides(-1 - root, path)

    @property
    def shown_again(self) -> set[location.FileKey]:
        """The files and folders of the index that the user adds, and whose removed photos are shown again."""
        keys = (location.locate(path, self.current.roots) for path in self.request.added)
        return {key for key in keys if key is not None}

    @property
    def key(self) -> str:
        """Names the folder of the build, 16 hex digits. Rows staged under another key are never used."""
        settings, embedder = self.settings, self.settings.embedder
        network = [settings.photo_sha256, settings.preprocessing_fingerprint, embedder.name, embedder.sha256]
        folders = [root.path for root in self.roots]
        text = json.dumps([FORMAT_VERSION, SCHEMA, settings.tokens, *network, settings.detector, *folders])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_build(request: BuildRequest, current: Current, matcher: Matcher, index: Path) -> BuildPlan:
    """Plans a build, under the index's lock. Raises BadInvocation; IndexRefused if it is of another network."""
    manifest, clusters = current.manifest, request.clusters
    roots, excluded = request.roots(index, manifest), request.exclusions(manifest).patterns
    identity, embedder = _choose_network(request, manifest, matcher)
    kept: System = "default" if manifest is None else manifest.system
    system: System = kept if request.system == "auto" else request.system
    if system == "two-stage" and identity.tokens == 1:
        raise BadInvocation("--system two-stage compares tokens; add --tokens all, or --system default.")
    if request.added and manifest is not None:
        manifest.check_identity(index, identity)
    recluster, computed = True, tuple[str, ...]()
    if manifest is not None and current.catalogs:
        current = replace(current, reusable=manifest.identity == identity and manifest.embedder.same(embedder.entry))
        # The number that the clusters were asked for with, or that k-means made of it.
        same_number = clusters in (None, manifest.clusters_asked, current.clusters)
        clusters = manifest.clusters_asked if clusters is None else clusters
        # Damaged parts of the clusters are computed again with them.
        recluster = request.recluster or not current.reusable or not same_number or not current.damaged <= {BOXES_FILE}
        recluster = recluster or system != manifest.system
        computed = manifest.computed if current.reusable else ()
    removals = current.removals.renumber(current.numbers(roots))
    for path in request.added:
        if (key := location.locate(path, roots)) is not None:
            removals = removals.with_change(*key, removed=False)
    settings = IndexSettings(
        **identity.model_dump(),
        system=system,
        embedder=embedder.entry,
        roots=roots,
        excluded=excluded,
        clusters_asked=clusters,
        detector=DETECTOR_NAME if identity.keeps_boxes else None,
        computed=computed,
    )
    return BuildPlan(request, current, settings, removals, embedder, recluster, rewrite=recluster)


def _choose_network(
    request: BuildRequest, manifest: Manifest | None, matcher: Matcher
) -> tuple[NetworkIdentity, ChosenEmbedder]:
    """Returns the network, with one token if only [Ret] is kept, and the embedder. Raises EmbedderUnavailable."""
    identity = NetworkIdentity.of(matcher)
    alone = identity.with_tokens(1)
    if request.tokens == "none" or (request.tokens == "auto" and manifest is not None and manifest.identity == alone):
        identity = alone
    if request.embedder != "auto":
        return identity, find_embedder(request.embedder, matcher.device, download=True)
    same = manifest is not None and manifest.identity.with_tokens(identity.tokens) == identity
    return identity, find_embedder(manifest.embedder.spec if manifest is not None and same else "auto", matcher.device)


def check_network(matcher: Matcher) -> None:
    """Raises BadInvocation if an index cannot hold the tokens of this network."""
    if matcher.config.token_count("photo") > 1 and matcher.config.grid**2 > MAX_PATCHES:
        raise BadInvocation("an index holds patch grids up to 16 by 16; use a checkpoint with fewer patches.")


def check_counts(plan: BuildPlan, photos: int) -> None:
    """Raises BadInvocation if more clusters or shards are asked for than there are photos."""
    clusters = plan.settings.clusters_asked
    if plan.recluster and clusters is not None and clusters > photos:
        raise BadInvocation(f"{clusters} clusters are too many for {photos} photos; lower --clusters.")
    check_shards(plan.shards, photos, "photos")


def check_shards(shards: int, most: int, things: str) -> None:
    """Raises BadInvocation if there are more than ``most`` shards, so that some would be empty."""
    if shards > most:
        raise BadInvocation(f"{shards} shards are too many for {most} {things}; lower --shards.")

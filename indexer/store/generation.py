"""Opens generations, the complete states of an index. Also defines their manifests, and checks their files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import from_json

from sketch_search.indexer.errors import REPAIR, IndexDamaged, IndexRefused, unreadable
from sketch_search.indexer.store.catalog import CATALOG_FILE, Catalog
from sketch_search.indexer.store.files import hash_file, write_atomically
from sketch_search.indexer.store.location import IndexFolder, no_index
from sketch_search.indexer.store.roots import Root
from sketch_search.indexer.store.rows import (
    BOXES_FILE,
    CLUSTERS_FILE,
    EMBEDDINGS_FILE,
    VECTORS_FILE,
    Array,
    ArraySubset,
    Centroids,
    PhotoArrays,
    PhotoTable,
    map_array,
    open_segment,
    unseen_boxes,
)
from sketch_search.model import Matcher
from sketch_search.model.engine.detector import BOXES, NO_KIND
from sketch_search.model.files import read_regular

# The version of the index format, raised by every change that another version of the program could not read.
FORMAT_VERSION: Final = 14
# The oldest supported version: it has no regions. Version 11 has no patterns, 13 no boxes.
_OLDEST_VERSION: Final = 10
Number = Annotated[int, Field(ge=0, le=2**40)]
# The system of an index: this project's own, or the two-stage report's, which stores cluster after cluster.
System: TypeAlias = Literal["default", "two-stage"]
# The network of each system, unless another is named.
NETWORK_OF: Mapping[System, str] = {"default": "default", "two-stage": "zse"}
#: About an index that does not say how it was computed.
AVX2_ALONE = "it does not say how it was computed: if on a processor with AVX2 alone, its vectors are wrong"
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=100)]
# A manifest larger than this is refused. The manifest of a million photos has less than a hundredth of it.
_MAX_BYTES = 1 << 28
_NAMES = TypeAdapter(list[str])
Document = TypeVar("Document", bound=BaseModel)


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(Frozen):
    """A file of a generation or a segment: its name, its size in bytes, and its SHA-256 (hex)."""

    name: _FileName
    size: Annotated[int, Field(ge=0, le=2**50)]
    sha256: str

    @staticmethod
    def of(path: Path) -> FileEntry:
        """Makes the entry of a completely written file."""
        return FileEntry(name=path.name, size=path.stat().st_size, sha256=hash_file(path))


class SegmentEntry(Frozen):
    """A segment: its name, how many rows it has, and its arrays."""

    id: _FileName
    rows: Number
    files: tuple[FileEntry, ...]


class EmbedderEntry(Frozen):
    """CLIP or [Ret], which made the clusters. spec: of ``--embedder``; sha256: of its own weights, else None."""

    kind: Literal["ret", "clip"]
    name: str
    description: str
    spec: str
    sha256: str | None = None

    def same(self, other: EmbedderEntry) -> bool:
        """Returns True if both give the same vectors, however they were named."""
        return (self.kind, self.name, self.sha256) == (other.kind, other.name, other.sha256)


class Counts(Frozen):
    """Shown contents, indexed files and their difference, unusable files, once indexed ones, rows of segments."""

    photos: Annotated[Number, Field(ge=1)]
    files: Number
    duplicates: Number
    bad: Number
    gone: Number
    clusters: Annotated[Number, Field(ge=1)]
    rows: Number


class NetworkIdentity(Frozen):
    """The network that made an index, and that a reader must have.

    photo_sha256: as ``Matcher.photo_sha256``. width: numbers in a token. tokens, regions: of one photo, without tokens
    no regions. cells: patches of its grid. region_width: numbers in a region.
    """

    photo_sha256: str
    preprocessing_fingerprint: str
    network: str
    width: Annotated[Number, Field(ge=1)]
    tokens: Annotated[Number, Field(ge=1)]
    cells: Annotated[Number, Field(ge=1)]
    regions: Number = 0
    region_width: Number = 0

    @staticmethod
    def of(matcher: Matcher) -> NetworkIdentity:
        return NetworkIdentity(
            photo_sha256=matcher.photo_sha256,
            preprocessing_fingerprint=matcher.preprocessing_fingerprint,
            network=matcher.config.name,
            width=matcher.config.width,
            tokens=matcher.config.token_count("photo"),
            cells=matcher.config.grid**2,
            regions=matcher.config.regions,
            region_width=matcher.config.region_width,
        )

    @property
    def keeps_boxes(self) -> bool:
        """Boxes are kept beside regions, which are compared with things, too."""
        return self.tokens > 1 and self.regions > 0

    def with_tokens(self, tokens: int) -> NetworkIdentity:
        """Describes the same network, with ``tokens`` tokens kept of each photo."""
        return self.model_copy(update={"tokens": tokens})


class Manifest(NetworkIdentity):
    """Everything about one generation, and the network that made it.

    previous: None for the first. system: that plain searches use. excluded: patterns as in .gitignore.
    clusters_asked: None for the system's own number. next_id: the lowest id never given. created: UTC. files: of its
    own folder, without the manifest. detector: which found boxes; None if there are none. unseen: photos in which none
    were looked for yet. computed: by which arithmetic photos were computed, on which kinds of processors; nothing if it
    was neither recorded nor checked.
    """

    format_version: Literal[10, 11, 12, 13, 14] = FORMAT_VERSION
    generation: _FileName
    previous: _FileName | None
    system: System = "default"
    embedder: EmbedderEntry
    roots: tuple[Root, ...]
    excluded: tuple[str, ...] = ()
    counts: Counts
    clusters_asked: Number | None
    next_id: Number
    created: datetime
    software: str
    detector: str | None = None
    unseen: Number = 0
    computed: tuple[str, ...] = ()
    segments: tuple[SegmentEntry, ...]
    files: tuple[FileEntry, ...]

    @model_validator(mode="after")
    def _add_up(self) -> Manifest:
        counts = self.counts
        if counts.photos + counts.duplicates != counts.files or counts.rows != sum(self.segment_sizes.values()):
            raise ValueError("the counts do not add up")
        return self

    @property
    def segment_sizes(self) -> dict[str, int]:
        return {segment.id: segment.rows for segment in self.segments}

    @property
    def segment_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of a photo in a segment, by its name."""
        if self.tokens == 1:
            return {}
        shapes: dict[str, tuple[int, ...]] = {
            "tokens": (self.tokens, self.width),
            "positions": (self.tokens - 1,),
            "scales": (self.tokens,),
        }
        if self.regions:
            shapes |= {"regions": (self.regions, self.region_width // 2), "colours": (self.regions, 3)}
        return shapes

    @property
    def root_names(self) -> tuple[str, ...]:
        return tuple(root.name for root in self.roots)

    @property
    def identity(self) -> NetworkIdentity:
        return NetworkIdentity(**{name: getattr(self, name) for name in NetworkIdentity.model_fields})

    def check_identity(self, index: Path, identity: NetworkIdentity) -> None:
        """Raises IndexRefused if the rows of the index in this folder are those of another network."""
        if self.photo_sha256 != identity.photo_sha256:
            raise IndexRefused(
                f"the index at {index} was built with other photo weights ({self.network}, {self.photo_sha256[:12]}; "
                f"this is {identity.photo_sha256[:12]}); load a checkpoint on these with --weights, or run "
                "`sketch-search index build` with this one."
            )
        if self.preprocessing_fingerprint != identity.preprocessing_fingerprint:
            raise IndexRefused(
                f"the index at {index} was built with other image preprocessing; run `sketch-search index build` again."
            )


def network_of(index: Path) -> str:
    """Names the embedded network that made an index; "default" if none of them did, or no index can be read."""
    with suppress(IndexRefused):
        manifest = current_manifest(IndexFolder(index))
        if manifest is not None and manifest.network in NETWORK_OF.values():
            return manifest.network
    return "default"


def read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest. Raises IndexRefused, for damage IndexDamaged."""
    advice = f"delete {path.parent.parent} and build again"
    document = read_json(path, _MAX_BYTES, advice)
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and 0 < version < _OLDEST_VERSION:
        raise IndexRefused(
            f"{path.parent.parent} has index format {version}, which this program no longer reads; run "
            "`sketch-search index build FOLDER` with a new folder as --index. To keep removals, run `index "
            "remove --from FILE`, with what `index info --json` of the older version prints."
        )
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise IndexRefused(
            f"{path.parent.parent} has index format {version}, and this program reads {FORMAT_VERSION}; "
            "update the program, or build a new index with --index."
        )
    return validate(Manifest, document, path, advice)


def read_json(path: Path, most: int, advice: str) -> object:
    """Reads the JSON in a file of an index, of ``most`` bytes at most. Raises IndexRefused, with ``advice``."""
    try:
        # Unlike json, this refuses half a surrogate pair, which no answer could contain.
        return from_json(read_regular(path, most))
    except OSError as error:
        raise unreadable(path, error, advice) from error
    except ValueError as error:
        raise IndexDamaged(f"{path} cannot be read ({error}); {advice}.") from error


def validate(schema: type[Document], document: object, path: Path, advice: str) -> Document:
    """Checks a document that was read from ``path``. Raises IndexRefused, with ``advice``, for a misfit."""
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        problem = str(first["msg"]).removeprefix("Value error, ")
        raise IndexDamaged(f"{path} is damaged ({field}: {problem}); {advice}.") from error


@dataclass(frozen=True)
class Generation:
    """A generation on disk. Its methods raise IndexRefused if a file is missing or differs from the manifest."""

    name: str
    path: Path
    manifest: Manifest

    def open_catalog(self) -> Catalog:
        return Catalog(self.path / CATALOG_FILE)

    def open_photo_table(self) -> PhotoTable:
        return PhotoTable.open(self.path, self.manifest.counts.rows)

    def open_vectors(self) -> dict[str, Array]:
        """Maps "vectors", and "embeddings" by CLIP if any, in the order of the table: (r, ...) float16."""
        manifest, rows = self.manifest, self.manifest.counts.rows
        arrays = {"vectors": map_array(self.path / VECTORS_FILE, (rows, manifest.width), np.float16)}
        if manifest.embedder.kind == "clip":
            arrays["embeddings"] = map_array(self.path / EMBEDDINGS_FILE, (rows, None), np.float16)
        return arrays

    def open_boxes(self) -> Array:
        """Maps the boxes, (r, BOXES, 6) uint8, in the order of the table; see ``unseen_boxes``."""
        return map_array(self.path / BOXES_FILE, (self.manifest.counts.rows, BOXES, 6), np.uint8)

    def boxes_by(self, detector: str, skipped: Collection[str] = ()) -> Array:
        """Maps the boxes found by this detector; all are unseen if another found them, or they are damaged."""
        if self.manifest.detector == detector and BOXES_FILE not in skipped:
            with suppress(IndexDamaged):
                return self.open_boxes()
        return unseen_boxes(self.manifest.counts.rows)

    def count_boxes(self) -> npt.NDArray[np.int64]:
        """Counts the boxes of each shown photo, (p,); 0 if they are damaged."""
        detector, photos = self.manifest.detector, self.manifest.counts.photos
        if detector is None:
            return np.zeros(photos, np.int64)
        return np.asarray((self.boxes_by(detector)[:photos, :, 0] != NO_KIND).sum(axis=1))

    def lacks_boxes(self, detector: str, skipped: Collection[str] = ()) -> bool:
        """Returns True if there are photos without boxes by this detector, as ``boxes_by`` returns them."""
        if self.manifest.unseen or self.manifest.detector != detector or BOXES_FILE in skipped:
            return True
        try:
            self.open_boxes()
        except IndexDamaged:
            return True
        return False

    def open_centroids(self) -> Centroids:
        manifest = self.manifest
        return Centroids.open(self.path, manifest.counts.clusters, manifest.width, manifest.tokens)

    def read_means(self) -> npt.NDArray[np.float32]:
        """Reads the k-means centroids of the embeddings, else of the vectors, (c, e) float32."""
        *_, clustered_by = self.open_vectors().values()
        return map_array(self.path / CLUSTERS_FILE, (self.manifest.counts.clusters, clustered_by.shape[1]))


def current_generation(folder: IndexFolder) -> Generation:
    """Opens the current generation. Raises IndexRefused, also if there is none yet."""
    generation = current_generation_if_any(folder)
    if generation is None:
        raise no_index(folder.path)
    return generation


def current_generation_if_any(folder: IndexFolder) -> Generation | None:
    """Like ``current_generation``, but returns None if nothing has been built yet."""
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


def current_manifest(folder: IndexFolder) -> Manifest | None:
    """Reads the manifest of the current generation, whose files may be missing; None before a build."""
    name = folder.current()
    return None if name is None else read_manifest(folder.generation(name) / "manifest.json")


def damaged_files(folder: IndexFolder, manifest: Manifest, *, read: bool = False) -> dict[Path, str]:
    """Finds files of a generation that are missing or of another size, or if ``read`` of another hash.

    Returns a sentence for each. Raises IndexRefused if a file cannot be read.
    """
    damaged: dict[Path, str] = {}
    for file, entry in generation_files(folder, manifest):
        try:
            size = file.stat().st_size
            if size != entry.size:
                damaged[file] = f"{file} has {size} bytes instead of {entry.size}; {REPAIR}."
            elif read and hash_file(file) != entry.sha256:
                damaged[file] = f"{file} has changed since it was written; {REPAIR}."
        except FileNotFoundError:
            damaged[file] = f"{file} is missing; {REPAIR}."
        except OSError as error:
            raise unreadable(file, error) from error
    return damaged


def read_damaged(folder: IndexFolder, manifest: Manifest) -> dict[Path, str]:
    """Returns a sentence for each file of a generation that a verification found damaged."""
    try:
        names = set(_NAMES.validate_json(read_regular(folder.damaged, _MAX_BYTES)))
    except (OSError, ValidationError):
        return {}
    files = (file for file, _ in generation_files(folder, manifest))
    return {file: f"{file} was damaged." for file in files if file.relative_to(folder.path).as_posix() in names}


def write_damaged(folder: IndexFolder, damaged: Iterable[Path]) -> None:
    """Records the files that a verification found damaged, for the next build. Raises OSError."""
    names = [file.relative_to(folder.path).as_posix() for file in damaged]
    write_atomically(folder.damaged, _NAMES.dump_json(names))


def open_generation(folder: IndexFolder, name: str) -> Generation:
    """Opens a generation, and checks the sizes of its files. Raises IndexRefused."""
    path = folder.generation(name)
    manifest = read_manifest(path / "manifest.json")
    for file, problem in damaged_files(folder, manifest).items():
        # Photos are searched without their boxes.
        if file.name != BOXES_FILE:
            raise IndexDamaged(problem)
    return Generation(name, path, manifest)


def keep_only(folder: IndexFolder, current: Generation | None, *, building: set[str] | None = None) -> None:
    """Deletes unused segments, and generations but the last two. building: keys of folders to keep, None for all."""
    stay = [] if current is None else [current]
    if current is not None and current.manifest.previous is not None:
        # Readers may still be opening it. It may be missing or incomplete.
        with suppress(IndexRefused):
            stay.append(open_generation(folder, current.manifest.previous))
    segments = {segment.id for generation in stay for segment in generation.manifest.segments}
    folder.clean({generation.name for generation in stay}, segments, building)


def used_segments(folder: IndexFolder) -> set[str]:
    """Returns the names of the segments of all generations that can be read, current or not."""
    names = set[str]()
    for name in folder.generations():
        with suppress(IndexRefused):
            names |= read_manifest(folder.generation(name) / "manifest.json").segment_sizes.keys()
    return names


def generation_files(folder: IndexFolder, manifest: Manifest) -> Iterable[tuple[Path, FileEntry]]:
    """Yields every file that a generation needs, except its manifest, and what the manifest says about the file."""
    for entry in manifest.files:
        yield folder.generation(manifest.generation) / entry.name, entry
    for segment in manifest.segments:
        for entry in segment.files:
            yield folder.segment(segment.id) / entry.name, entry


def open_rows(
    folder: IndexFolder, generation: Generation, skipped: Collection[str] = (), detector: str | None = None
) -> dict[str, PhotoArrays]:
    """Maps the rows of a generation into memory, by segment, without the ``skipped`` ones. Raises IndexRefused.

    detector: of the boxes, as for ``Generation.boxes_by``; None for rows without boxes.
    """
    manifest = generation.manifest
    kept = [(number, segment) for number, segment in enumerate(manifest.segments) if segment.id not in skipped]
    if not kept:
        return {}
    arrays = generation.open_vectors()
    if detector is not None:
        arrays["boxes"] = generation.boxes_by(detector, skipped)
    table = generation.open_photo_table()
    rows: dict[str, PhotoArrays] = {}
    for number, segment in kept:
        numbers = table.of_segment(number)
        picked: dict[str, Array | ArraySubset] = {name: ArraySubset(array, numbers) for name, array in arrays.items()}
        tokens = open_segment(folder.segment(segment.id), segment.rows, manifest.segment_shapes)
        rows[segment.id] = PhotoArrays({**picked, **tokens.arrays})
    return rows

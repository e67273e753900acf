"""Opens generations, the complete states of an index. Also defines their manifests, and checks their files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from sketch_search.indexer.errors import REPAIR, IndexDamaged, IndexRefused, unreadable
from sketch_search.indexer.store.catalog import CATALOG_FILE, Catalog
from sketch_search.indexer.store.files import hash_file, write_atomically
from sketch_search.indexer.store.location import IndexFolder, Root, no_index
from sketch_search.indexer.store.rows import (
    BOXES_FILE,
    CLUSTERS_FILE,
    DTYPES,
    EMBEDDINGS_FILE,
    VECTORS_FILE,
    Array,
    ArraySubset,
    Centroids,
    PhotoArrays,
    PhotoTable,
    map_array,
    unseen_boxes,
)
from sketch_search.model import Matcher
from sketch_search.model.engine.detector import BOXES
from sketch_search.model.files import read_regular
from sketch_search.model.limits import System

# The version of the index format, raised by every change that another version of the program could not read.
FORMAT_VERSION: Final = 16
Number = Annotated[int, Field(ge=0, le=2**40)]
# The network of each system, unless another is named. The two-stage report's stores cluster after cluster.
NETWORK_OF: Mapping[System, str] = {"default": "default", "two-stage": "zse"}
# A manifest larger than this is refused. The manifest of a million photos has less than a hundredth of it.
_MAX_BYTES = 1 << 28
_NAMES = TypeAdapter(list[str])
Document = TypeVar("Document", bound=BaseModel)


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(Frozen):
    """A file of a generation or a segment: its name, its size in bytes, and its SHA-256 (hex)."""

    name: str
    size: Annotated[int, Field(ge=0, le=2**50)]
    sha256: str

    @staticmethod
    def of(path: Path) -> FileEntry:
        """Makes the entry of a completely written file."""
        return FileEntry(name=path.name, size=path.stat().st_size, sha256=hash_file(path))


class SegmentEntry(Frozen):
    id: str
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
    """Shown contents, indexed files and their difference, unusable files, once indexed ones, rows of segments; and rows
    of parts of shown contents."""

    photos: Annotated[Number, Field(ge=1)]
    files: Number
    duplicates: Number
    bad: Number
    gone: Number
    clusters: Annotated[Number, Field(ge=1)]
    rows: Number
    parts: Number = 0


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


class IndexSettings(NetworkIdentity):
    """How photos are chosen, computed and clustered, and the network that does it.

    system: that plain searches use. excluded: patterns as in .gitignore. clusters_asked: None for the system's own
    number. detector: which finds boxes; None if none are kept. computed: by which arithmetic photos were computed, on
    which kinds of processors.
    """

    system: System = "default"
    embedder: EmbedderEntry
    roots: tuple[Root, ...]
    excluded: tuple[str, ...] = ()
    clusters_asked: Number | None
    detector: str | None = None
    computed: tuple[str, ...] = ()

    @property
    def identity(self) -> NetworkIdentity:
        return NetworkIdentity(**{name: getattr(self, name) for name in NetworkIdentity.model_fields})


class Manifest(IndexSettings):
    """Everything about one generation.

    previous: None for the first. next_id: the lowest id never given. created: UTC. unseen: photos in which no boxes
    were looked for yet. files: of its own folder, without the manifest.
    """

    format_version: Literal[16] = FORMAT_VERSION
    generation: str
    previous: str | None
    counts: Counts
    next_id: Number
    created: datetime
    software: str
    unseen: Number = 0
    segments: tuple[SegmentEntry, ...]
    files: tuple[FileEntry, ...]

    @property
    def segment_sizes(self) -> dict[str, int]:
        return {segment.id: segment.rows for segment in self.segments}

    @property
    def segment_shapes(self) -> dict[str, tuple[int, ...]]:
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
    def settings(self) -> IndexSettings:
        return IndexSettings(**{name: getattr(self, name) for name in IndexSettings.model_fields})

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
        current = find_generation(IndexFolder(index), check=False)
        if current is not None and current.manifest.network in NETWORK_OF.values():
            return current.manifest.network
    return "default"


def read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest. Raises IndexRefused, for damage IndexDamaged."""
    index = path.parent.parent

    def check(document: object) -> None:
        version = document.get("format_version") if isinstance(document, dict) else None
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise IndexRefused(
                f"{index} has index format {version}, and this program reads {FORMAT_VERSION}; delete that folder, and "
                f"run `sketch-search index build FOLDER --index {index}`."
            )

    return read_document(Manifest, path, f"delete {index} and build again", check)


def read_document(
    schema: type[Document], path: Path, advice: str, check: Callable[[object], None] = lambda document: None
) -> Document:
    """Reads the JSON in a file of an index, and lets ``check`` see it first. Raises IndexRefused, with ``advice``."""
    try:
        # Unlike json, this refuses half a surrogate pair, which no answer could contain.
        document = from_json(read_regular(path, _MAX_BYTES))
        check(document)
        return schema.model_validate(document)
    except OSError as error:
        raise unreadable(path, error, advice) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        problem = str(first["msg"]).removeprefix("Value error, ")
        raise IndexDamaged(f"{path} is damaged ({field}: {problem}); {advice}.") from error
    except ValueError as error:
        raise IndexDamaged(f"{path} cannot be read ({error}); {advice}.") from error


@dataclass(frozen=True)
class Generation:
    """A generation on disk. Its methods raise IndexRefused if a file is missing or differs from the manifest."""

    folder: IndexFolder
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.generation

    @property
    def path(self) -> Path:
        return self.folder.path / self.name

    def files(self) -> Iterator[tuple[Path, FileEntry]]:
        """Yields every file that it needs, except its manifest, and what the manifest says about the file."""
        for entry in self.manifest.files:
            yield self.path / entry.name, entry
        for segment in self.manifest.segments:
            for entry in segment.files:
                yield self.folder.segments / segment.id / entry.name, entry

    def damage(self, *, read: bool = False) -> dict[Path, str]:
        """Returns a sentence for each file that is missing or of another size, or if ``read`` of another hash."""
        damaged: dict[Path, str] = {}
        for file, entry in self.files():
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

    def recorded_damage(self) -> dict[Path, str]:
        """Returns a sentence for each file that a verification found damaged."""
        try:
            names = set(_NAMES.validate_json(read_regular(self.folder.damaged, _MAX_BYTES)))
        except (OSError, ValidationError):
            return {}
        return {file: f"{file} was damaged." for file, _ in self.files() if self._relative(file) in names}

    def record_damage(self, damaged: Iterable[Path]) -> None:
        """Records the files that a verification found damaged, for the next build. Raises OSError."""
        write_atomically(self.folder.damaged, _NAMES.dump_json([*map(self._relative, damaged)]))

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.folder.path).as_posix()

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

    def boxes_by(self, detector: str | None, skipped: Collection[str] = ()) -> Array | None:
        """Maps the boxes that this detector found; None if another found them, or they are damaged."""
        if detector is not None and self.manifest.detector == detector and BOXES_FILE not in skipped:
            with suppress(IndexDamaged):
                return self.open_boxes()
        return None

    def open_segment(self, segment: SegmentEntry) -> PhotoArrays:
        folder, rows, shapes = self.folder.segments / segment.id, segment.rows, self.manifest.segment_shapes
        arrays = {name: map_array(folder / f"{name}.npy", (rows, *each), DTYPES[name]) for name, each in shapes.items()}
        return PhotoArrays(arrays)

    def open_rows(self, skipped: Collection[str] = (), detector: str | None = None) -> dict[str, PhotoArrays]:
        """Maps all rows into memory, by segment, without the ``skipped`` ones.

        detector: of the boxes, as for ``boxes_by``; None for rows without boxes.
        """
        if self.manifest.segment_sizes.keys() <= {*skipped}:
            return {}
        arrays = self.open_vectors()
        if detector is not None:
            boxes = self.boxes_by(detector, skipped)
            arrays["boxes"] = unseen_boxes(self.manifest.counts.rows) if boxes is None else boxes
        table, rows = self.open_photo_table(), dict[str, PhotoArrays]()
        for number, segment in enumerate(self.manifest.segments):
            if segment.id not in skipped:
                numbers = table.of_segment(number)
                picked = {name: ArraySubset(array, numbers) for name, array in arrays.items()}
                rows[segment.id] = PhotoArrays({**picked, **self.open_segment(segment).arrays})
        return rows

    def open_centroids(self) -> Centroids:
        manifest = self.manifest
        return Centroids.open(self.path, manifest.counts.clusters, manifest.width, manifest.tokens)

    def read_kmeans_centroids(self) -> npt.NDArray[np.float32]:
        """Reads the k-means centroids of the embeddings, else of the vectors, (c, e) float32."""
        *_, clustered_by = self.open_vectors().values()
        return map_array(self.path / CLUSTERS_FILE, (self.manifest.counts.clusters, clustered_by.shape[1]))


def open_generation(folder: IndexFolder, name: str, *, check: bool = True) -> Generation:
    """Opens a generation, and checks the sizes of its files if asked to. Raises IndexRefused."""
    generation = Generation(folder, read_manifest(folder.path / name / "manifest.json"))
    for file, problem in generation.damage().items() if check else ():
        # Photos are searched without their boxes.
        if file.name != BOXES_FILE:
            raise IndexDamaged(problem)
    return generation


def find_generation(folder: IndexFolder, *, check: bool = True) -> Generation | None:
    """Opens the current generation; None before a build. Raises as ``open_generation`` does."""
    while (name := folder.current()) is not None:
        try:
            return open_generation(folder, name, check=check)
        except IndexRefused:
            # Two builds may have ended since CURRENT was read, and the second deletes the generation that it named.
            if folder.current() in (None, name):
                raise
    return None


def current_generation(folder: IndexFolder) -> Generation:
    """Opens the current generation. Raises IndexRefused, also if there is none yet."""
    if (generation := find_generation(folder)) is None:
        raise no_index(folder.path)
    return generation


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
            names |= open_generation(folder, name, check=False).manifest.segment_sizes.keys()
    return names

"""The manifest of a generation: what it was made from, and every file it needs with size and hash."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.errors import REPAIR, IndexRefused, IndexTooNew
from indexer.store.files import hash_file
from model import Matcher

# 2: tokens in int8 with a scale each; in 1 they were float16. Segments are immutable, so a generation of format 2 may
# share some that were written in 1, and what they are is told by their files.
FORMAT_VERSION: Final = 2
# Networks encode in this, whatever they score in.
PRECISION = "float32"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Frozen):
    """A file of a generation or a segment: name, bytes, SHA-256 (hex)."""

    name: str
    size: int
    sha256: str

    @staticmethod
    def of(path: Path) -> FileEntry:
        """The entry of a file that is complete."""
        return FileEntry(name=path.name, size=path.stat().st_size, sha256=hash_file(path))


class SegmentEntry(_Frozen):
    """A segment: its id, its rows, the precision they were computed in (not that in which they lie), and its files."""

    id: str
    rows: int
    dtype: str
    files: tuple[FileEntry, ...]

    @property
    def outdated(self) -> bool:
        """Whether its tokens are as format 1 has them."""
        names = {file.name for file in self.files}
        return "tokens.npy" in names and "scales.npy" not in names


class RootEntry(_Frozen):
    """A folder of the gallery: the name its paths begin with among several roots, and its absolute path."""

    name: str
    path: str


class EmbedderEntry(_Frozen):
    """What made the vectors that were clustered.

    Attributes:
        kind: "clip", or "ret" for the checkpoint's own retrieval token.
        name: short, for a table. description: a full sentence part.
        spec: what to pass as ``--embedder`` to get it again.
        sha256: of its weights (and configuration); None for "ret", which the checkpoint's hash covers.
    """

    kind: Literal["ret", "clip"]
    name: str
    description: str
    spec: str
    sha256: str | None = None

    def same(self, other: EmbedderEntry) -> bool:
        """Whether both give the same vectors, by whatever words they were asked for."""
        return (self.kind, self.name, self.sha256) == (other.kind, other.name, other.sha256)


class Counts(_Frozen):
    """How many of what.

    Attributes:
        photos: distinct contents shown. files: files behind them. duplicates: files minus photos.
        bad: files that cannot be indexed. gone: files once indexed and no longer there.
        clusters: clusters. rows: rows in all segments, those no longer shown included.
    """

    photos: int
    files: int
    duplicates: int
    bad: int
    gone: int
    clusters: int
    rows: int


@dataclass(frozen=True)
class Origin:
    """The network that made an index: what its rows depend on, and what a reader must have to use them.

    Attributes:
        network: its name. width: d. tokens: n, those of one photo.
    """

    checkpoint_sha256: str
    preprocessing_fingerprint: str
    network: str
    width: int
    tokens: int

    @staticmethod
    def of(matcher: Matcher) -> Origin:
        """The origin of what this network makes."""
        return Origin(
            matcher.checkpoint_sha256,
            matcher.preprocessing_fingerprint,
            matcher.config.name,
            matcher.config.width,
            matcher.token_count("photo"),
        )


class Manifest(_Frozen):
    """Everything about one generation.

    Attributes:
        dtype: the precision that the newest rows were computed in.
        clusters_asked: how many the user wanted; None for about sqrt(photos).
        next_id: the first id never given.
    """

    format_version: Literal[1, 2] = FORMAT_VERSION
    generation: str
    previous: str | None
    checkpoint_sha256: str
    preprocessing_fingerprint: str
    network: str
    width: int
    tokens: int
    dtype: str
    embedder: EmbedderEntry
    roots: tuple[RootEntry, ...]
    counts: Counts
    clusters_asked: int | None
    centroids: Literal["mean"] = "mean"
    next_id: int
    created: datetime
    software: str
    segments: tuple[SegmentEntry, ...]
    files: tuple[FileEntry, ...]

    @property
    def root_names(self) -> tuple[str, ...]:
        """The roots' names in order."""
        return tuple(root.name for root in self.roots)

    @property
    def exact(self) -> bool:
        """Whether all rows were computed in PRECISION: earlier versions could reduce it, and selected other tokens."""
        return all(segment.dtype == PRECISION for segment in self.segments)

    @property
    def origin(self) -> Origin:
        """The network that made this."""
        return Origin(self.checkpoint_sha256, self.preprocessing_fingerprint, self.network, self.width, self.tokens)


def software_version() -> str:
    """The installed version of this program, or "unknown" when it runs from a folder."""
    try:
        return metadata.version("sketch-search")
    except metadata.PackageNotFoundError:
        return "unknown"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        IndexRefused: missing or damaged. IndexTooNew: of a newer format.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise IndexRefused(f"{path} is missing; {REPAIR}.") from error
    except OSError as error:
        raise IndexRefused(f"{path} cannot be read: {error.strerror}; check its permissions.") from error
    except ValueError as error:
        raise IndexRefused(f"{path} cannot be read ({error}); {REPAIR}.") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise IndexTooNew(
            f"{path.parent.parent} has index format {version}, and this program reads up to {FORMAT_VERSION}; "
            "update the program, or build a new index with --index."
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise IndexRefused(f"{path} is damaged ({place}: {first['msg']}); {REPAIR}.") from error

"""The manifest of a generation: what it was made from, and every file it needs with size and hash."""

from __future__ import annotations

import json
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.errors import IndexRefused
from indexer.files import hash_file

FORMAT_VERSION = 1


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
    """A segment: its id, its rows, the precision they were computed in, and its files."""

    id: str
    rows: int
    dtype: str
    files: tuple[FileEntry, ...]


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


class Manifest(_Frozen):
    """Everything about one generation; see the module."""

    format_version: Literal[1] = 1
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


def software_version() -> str:
    """The installed version of this program, or "unknown" when it runs from a folder."""
    try:
        return metadata.version("sketch-search")
    except metadata.PackageNotFoundError:
        return "unknown"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        IndexRefused: missing, damaged, or of a newer format.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise IndexRefused(f"{path} is missing; delete the index folder and build again.") from error
    except OSError as error:
        raise IndexRefused(f"{path} cannot be read: {error.strerror}; check its permissions.") from error
    except ValueError as error:
        raise IndexRefused(f"{path} cannot be read ({error}); delete the index folder and build again.") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise IndexRefused(
            f"{path.parent.parent} has index format {version}, and this program reads {FORMAT_VERSION}; "
            "update the program, or build a new index with --index."
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise IndexRefused(
            f"{path} is damaged ({place}: {first['msg']}); delete the index folder and build again."
        ) from error

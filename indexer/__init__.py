"""Photos in, an index on disk out; and the index opened for searching."""

from indexer.building import BuildReport, Progress, ProgressState, add, build, read_progress
from indexer.errors import (
    BadInvocation,
    EmbedderUnavailable,
    IndexBusy,
    IndexerError,
    IndexRefused,
    IndexUnwritable,
    PhotoUnavailable,
    UnknownPhoto,
)
from indexer.store import ClusterRows, Drift, Index, Manifest, PhotoEntry, default_index_path, live_stamp, open_index
from indexer.upkeep import IndexInfo, RepairReport, UpkeepReport, compact, read_info, remove, repair, verify

__all__ = [
    "BadInvocation",
    "BuildReport",
    "ClusterRows",
    "Drift",
    "EmbedderUnavailable",
    "Index",
    "IndexBusy",
    "IndexInfo",
    "IndexRefused",
    "IndexUnwritable",
    "IndexerError",
    "Manifest",
    "PhotoEntry",
    "PhotoUnavailable",
    "Progress",
    "ProgressState",
    "RepairReport",
    "UnknownPhoto",
    "UpkeepReport",
    "add",
    "build",
    "compact",
    "default_index_path",
    "live_stamp",
    "open_index",
    "read_info",
    "read_progress",
    "remove",
    "repair",
    "verify",
]

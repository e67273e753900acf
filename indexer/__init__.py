"""Photos in, an index on disk out; and the index opened for searching.

``build`` and ``add`` make it, ``open_index`` opens it for searching, and the rest looks after it.
"""

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
from indexer.upkeep import IndexSummary, RepairReport, UpkeepReport, compact, read_summary, remove, repair, verify

__all__ = [
    "BadInvocation",
    "BuildReport",
    "ClusterRows",
    "Drift",
    "EmbedderUnavailable",
    "Index",
    "IndexBusy",
    "IndexRefused",
    "IndexSummary",
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
    "read_progress",
    "read_summary",
    "remove",
    "repair",
    "verify",
]

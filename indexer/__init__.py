"""Photos in, an index on disk out; and the index opened for searching."""

from indexer.build import BuildReport, add, build
from indexer.drift import Drift
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
from indexer.info import IndexInfo, read_info
from indexer.location import default_index_path, live_stamp
from indexer.manifest import Manifest
from indexer.progress import Progress, ProgressState, read_progress
from indexer.reader import ClusterRows, Index, PhotoEntry, open_index
from indexer.repair import RepairReport, repair
from indexer.upkeep import UpkeepReport, compact, remove
from indexer.verify import verify

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

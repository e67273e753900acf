"""Photos in, an index on disk out; and the index opened for searching."""

from indexer.building.builder import BuildReport, add, build
from indexer.building.progress import Progress, ProgressState, read_progress
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
from indexer.store.drift import Drift
from indexer.store.location import default_index_path, live_stamp
from indexer.store.manifest import Manifest
from indexer.store.reader import ClusterRows, Index, PhotoEntry, open_index
from indexer.upkeep.compact import UpkeepReport, compact, remove
from indexer.upkeep.info import IndexInfo, read_info
from indexer.upkeep.repair import RepairReport, repair
from indexer.upkeep.verify import verify

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

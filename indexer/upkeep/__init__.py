"""What is done to an index that is there: remove, compact, verify, repair, tell."""

from indexer.upkeep.compaction import UpkeepReport, compact, remove
from indexer.upkeep.repairs import RepairReport, repair
from indexer.upkeep.summary import IndexInfo, read_info
from indexer.upkeep.verification import verify
from indexer.upkeep.watcher import look, watch

__all__ = [
    "IndexInfo",
    "RepairReport",
    "UpkeepReport",
    "compact",
    "look",
    "read_info",
    "remove",
    "repair",
    "verify",
    "watch",
]

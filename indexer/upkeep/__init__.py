"""What is done to an index that is there: remove, compact, verify, repair, tell."""

from indexer.upkeep.compaction import UpkeepReport, compact, remove
from indexer.upkeep.info import IndexInfo, read_info
from indexer.upkeep.repairs import RepairReport, repair
from indexer.upkeep.verification import verify

__all__ = [
    "IndexInfo",
    "RepairReport",
    "UpkeepReport",
    "compact",
    "read_info",
    "remove",
    "repair",
    "verify",
]

"""What is done to an index that is there: watch its photos, remove, compact, verify, repair, and say what it holds."""

from indexer.upkeep.compaction import compact
from indexer.upkeep.comparison import Comparison, compare
from indexer.upkeep.removal import RemovalPlan, plan_removal, remove
from indexer.upkeep.repairs import RepairReport, repair
from indexer.upkeep.rewriting import UpkeepReport
from indexer.upkeep.summary import IndexSummary, read_summary
from indexer.upkeep.verification import verify
from indexer.upkeep.watcher import gallery_state, watch

__all__ = [
    "Comparison",
    "IndexSummary",
    "RemovalPlan",
    "RepairReport",
    "UpkeepReport",
    "compact",
    "compare",
    "gallery_state",
    "plan_removal",
    "read_summary",
    "remove",
    "repair",
    "verify",
    "watch",
]

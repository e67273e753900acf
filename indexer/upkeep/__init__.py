"""Looks after an existing index: watches its photos, removes, compacts, verifies, repairs, and says what it holds."""

from indexer.upkeep.rewriting import RemovalPlan, UpkeepReport, compact, plan_removal, remove
from indexer.upkeep.summary import IndexSummary, gallery_state, indexed_folders, read_summary, watch
from indexer.upkeep.verification import compare, repair, verify

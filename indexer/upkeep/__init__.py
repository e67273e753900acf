"""Looks after an existing index: watches its photos, removes some, verifies it, and says what it holds."""

from indexer.upkeep.removal import RemovalPlan, RemovalReport, plan_removal, remove
from indexer.upkeep.summary import IndexSummary, gallery_state, indexed_folders, read_summary, watch
from indexer.upkeep.verification import compare, verify

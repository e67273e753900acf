"""Builds the next generation of an index from folders of photos."""

from indexer.building.builds import (
    BuildReport,
    Decision,
    Staged,
    Written,
    build,
    build_growing,
    check_network,
    check_shards,
    decide,
    run_decided,
    run_here,
    wanted_embedder,
    wanted_origin,
)
from indexer.building.folder_listing import BadFile, FolderListing
from indexer.building.plan import LiveState, shown_ids
from indexer.building.progress import Progress, read_progress
from indexer.building.request import DEFAULT_BATCH, Request, StartingPoint, find_replacement, live_roots
from indexer.building.staging import Journal, Stager
from indexer.building.writer import Clustering, Contents, GenerationWriter

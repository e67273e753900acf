"""From folders of photos to the next generation of an index."""

from indexer.building.builder import Builder, BuildReport
from indexer.building.clustering import Clustering
from indexer.building.decision import StartingPoint, decide, wanted_embedder
from indexer.building.execution import add, build, run
from indexer.building.folder_listing import (
    BadFile,
    FolderListing,
    Skipped,
    bad_files,
    list_gallery,
    list_photos,
)
from indexer.building.journal import BuildSettings
from indexer.building.live_state import LiveState, check_clusters, shown_ids, usable_ids
from indexer.building.lookup import Inversion
from indexer.building.plan import Plan, catalog_entries
from indexer.building.progress import Progress, ProgressState, read_progress
from indexer.building.replacement import Replacement, find_replacement
from indexer.building.request import DEFAULT_BATCH, Request, live_roots
from indexer.building.staging import Stager
from indexer.building.writer import Contents, GenerationWriter

__all__ = [
    "DEFAULT_BATCH",
    "BadFile",
    "BuildReport",
    "BuildSettings",
    "Builder",
    "Clustering",
    "Contents",
    "FolderListing",
    "GenerationWriter",
    "Inversion",
    "LiveState",
    "Plan",
    "Progress",
    "ProgressState",
    "Replacement",
    "Request",
    "Skipped",
    "Stager",
    "StartingPoint",
    "add",
    "bad_files",
    "build",
    "catalog_entries",
    "check_clusters",
    "decide",
    "find_replacement",
    "list_gallery",
    "list_photos",
    "live_roots",
    "read_progress",
    "run",
    "shown_ids",
    "usable_ids",
    "wanted_embedder",
]

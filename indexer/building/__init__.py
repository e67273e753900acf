"""From folders of photos to the next generation of an index."""

from indexer.building.builds import (
    Builder,
    BuildReport,
    StartingPoint,
    add,
    build,
    decide,
    run,
    wanted_embedder,
    wanted_origin,
)
from indexer.building.folder_listing import (
    BadFile,
    FolderListing,
    Skipped,
    bad_files,
    list_gallery,
    list_photos,
)
from indexer.building.plan import LiveState, Plan, catalog_entries, check_clusters, shown_ids, usable_ids
from indexer.building.progress import Progress, ProgressState, read_progress
from indexer.building.request import DEFAULT_BATCH, Replacement, Request, find_replacement, live_roots
from indexer.building.staging import Stager, build_key
from indexer.building.writer import Clustering, Contents, GenerationWriter

__all__ = [
    "DEFAULT_BATCH",
    "BadFile",
    "BuildReport",
    "Builder",
    "Clustering",
    "Contents",
    "FolderListing",
    "GenerationWriter",
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
    "build_key",
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
    "wanted_origin",
]

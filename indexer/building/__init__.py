"""From folders of photos to the next generation of an index."""

from indexer.building.builder import Builder, BuildReport
from indexer.building.clustering import Clustering
from indexer.building.decision import StartingPoint, decide, pooling_as_asked, wanted_embedder
from indexer.building.execution import add, build, run
from indexer.building.folder_listing import BadFile, list_photos
from indexer.building.live_state import LiveState, shown_ids
from indexer.building.lookup import Inversion
from indexer.building.progress import Progress, ProgressState, read_progress
from indexer.building.replacement import Replacement, find_replacement
from indexer.building.request import DEFAULT_BATCH, Request, live_roots
from indexer.building.writer import Contents, GenerationWriter

__all__ = [
    "DEFAULT_BATCH",
    "BadFile",
    "BuildReport",
    "Builder",
    "Clustering",
    "Contents",
    "GenerationWriter",
    "Inversion",
    "LiveState",
    "Progress",
    "ProgressState",
    "Replacement",
    "Request",
    "StartingPoint",
    "add",
    "build",
    "decide",
    "find_replacement",
    "list_photos",
    "live_roots",
    "pooling_as_asked",
    "read_progress",
    "run",
    "shown_ids",
    "wanted_embedder",
]

"""From folders of photos to the next generation of an index."""

from indexer.building.builder import Base, Builder, BuildReport, add, build, run
from indexer.building.plan import LiveState, shown_order
from indexer.building.progress import Progress, ProgressState, read_progress
from indexer.building.request import DEFAULT_BATCH, Request, live_roots
from indexer.building.writer import Clustering, Contents, GenerationWriter

__all__ = [
    "DEFAULT_BATCH",
    "Base",
    "BuildReport",
    "Builder",
    "Clustering",
    "Contents",
    "GenerationWriter",
    "LiveState",
    "Progress",
    "ProgressState",
    "Request",
    "add",
    "build",
    "live_roots",
    "read_progress",
    "run",
    "shown_order",
]

"""Photos in, an index on disk out; and the index opened for searching.

``build`` makes an index, ``open_index`` opens it for searching, and the other names maintain it.
docs/architecture.md lists the packages. The names below are imported on first use, because a command line
that only shows its help also imports this package, and should not wait for NumPy and FAISS.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import model as model  # before NumPy, to keep its threads from spinning

if TYPE_CHECKING:
    from indexer.building.builds import BuildReport, build, build_growing
    from indexer.building.progress import Progress, read_progress
    from indexer.building.request import Request
    from indexer.embedding import open_text_tower
    from indexer.errors import (
        BadInvocation,
        EmbedderUnavailable,
        IndexBusy,
        IndexDamaged,
        IndexerError,
        IndexRefused,
        IndexUnwritable,
        PhotoUnavailable,
        UnknownPhoto,
    )
    from indexer.store.catalog import PhotoFilter
    from indexer.store.folders import Address, Folder
    from indexer.store.generation import EmbedderEntry, NetworkIdentity
    from indexer.store.location import current_stamp, default_index_path
    from indexer.store.reader import Index, PhotoEntry, open_index
    from indexer.store.roots import folder_at, folder_of
    from indexer.store.shards import shard_folders
    from indexer.store.vectors import Vectors
    from indexer.upkeep import RemovalReport, indexed_folders, photo_folders, read_summary, remove, verify

# From the lowest to the highest, so that a name from a low module loads no higher one.
_MODULES = (
    "errors",
    "store.location",
    "store.roots",
    "store.generation",
    "store.shards",
    "store.reader",
    "embedding",
    "building.progress",
    "building.request",
    "building.builds",
    "upkeep",
)


def __getattr__(name: str) -> Any:
    """Imports an exported name from the first module that has it."""
    # Python itself looks up names with underscores.
    for module_name in () if name.startswith("_") else _MODULES:
        module = importlib.import_module(f"{__name__}.{module_name}")
        if hasattr(module, name):
            value = globals()[name] = getattr(module, name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

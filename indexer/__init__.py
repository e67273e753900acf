"""Photos in, an index on disk out. Names are imported on first use: help should not wait for NumPy and FAISS."""

from typing import TYPE_CHECKING, Any

from sketch_search import import_late

if TYPE_CHECKING:
    from sketch_search.indexer.building.builder import BuildReport, build, build_growing
    from sketch_search.indexer.building.plan import BuildRequest, open_text_tower
    from sketch_search.indexer.building.staging import Progress, read_progress
    from sketch_search.indexer.errors import (
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
    from sketch_search.indexer.store.catalog import PhotoFilter
    from sketch_search.indexer.store.folders import Address
    from sketch_search.indexer.store.generation import NETWORK_OF, EmbedderEntry, NetworkIdentity, network_of
    from sketch_search.indexer.store.location import current_stamp, default_index_path, folder_at, folder_of
    from sketch_search.indexer.store.reader import Index, PhotoEntry, open_index, shard_folders
    from sketch_search.indexer.store.remote import Folder
    from sketch_search.indexer.upkeep import RemovalReport, count_files, indexed_folders, read_summary, remove, verify

# From the lowest to the highest, so that a name from a low module loads no higher one.
_STORE = ("store.location", "store.generation", "store.reader")
_MODULES = ("errors", *_STORE, "building.plan", "building.staging", "building.builder", "upkeep")


def __getattr__(name: str) -> Any:
    # Python itself looks up names with underscores.
    return import_late(__name__, name, () if name.startswith("_") else _MODULES)

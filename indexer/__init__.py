"""Photos in, an index on disk out; and the index opened for searching.

``build`` makes an index, ``open_index`` opens it for searching, and the rest looks after it.
docs/architecture.md lists the rooms. The names below are imported when they are first used, because a command line that
only shows its help imports this package, too, and should not wait for PyTorch.
"""

from __future__ import annotations

import importlib

# Stands for `typing.TYPE_CHECKING`: importing typing would take longer than the rest of this module, and Ctrl-C pressed
# meanwhile would end in a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from indexer.building import BuildReport, Progress, Request, build, build_growing, read_progress
    from indexer.embedding import open_towers
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
    from indexer.place import default_index_path
    from indexer.store import (
        Address,
        EmbedderEntry,
        Folder,
        Index,
        Origin,
        PhotoEntry,
        PhotoFilter,
        Vectors,
        folder_at,
        folder_of,
        live_stamp,
        open_index,
        shard_folders,
    )
    from indexer.upkeep import indexed_folders, read_summary, remove, verify

# The rooms from the lowest to the highest, so that a name from a low room loads no higher room.
_ROOMS = ("errors", "place", "store", "embedding", "building", "upkeep")


def __getattr__(name: str) -> Any:
    """Imports an exported name from the first room that has it."""
    # Python itself asks for names with underscores.
    for room in () if name.startswith("_") else _ROOMS:
        module = importlib.import_module(f"{__name__}.{room}")
        if hasattr(module, name):
            value = globals()[name] = getattr(module, name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

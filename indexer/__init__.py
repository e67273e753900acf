"""Photos in, an index on disk out; and the index opened for searching.

``build`` and ``add`` make an index, ``open_index`` opens it for searching, and the rest looks after it. The rooms, each
of which uses those below it:

    upkeep      what is done to an index that is there: watch, remove, compact, verify, repair
    building    from folders of photos to the next generation of an index
    embedding   the vectors that photos are clustered by; a second kind of embedding would be here
    store       the index on disk, and its reader; a search structure such as IVF would be here
    samples     the sample gallery

An index over several machines would be several ordinary indexes, and a room above ``building`` that makes them.
"""

from indexer.building import BuildReport, Progress, ProgressState, add, build, read_progress
from indexer.errors import (
    BadInvocation,
    EmbedderUnavailable,
    IndexBusy,
    IndexerError,
    IndexRefused,
    IndexUnwritable,
    PhotoUnavailable,
    UnknownPhoto,
)
from indexer.store import ClusterRows, Drift, Index, Manifest, PhotoEntry, default_index_path, live_stamp, open_index
from indexer.upkeep import IndexSummary, RepairReport, UpkeepReport, compact, read_summary, remove, repair, verify

__all__ = [
    "BadInvocation",
    "BuildReport",
    "ClusterRows",
    "Drift",
    "EmbedderUnavailable",
    "Index",
    "IndexBusy",
    "IndexRefused",
    "IndexSummary",
    "IndexUnwritable",
    "IndexerError",
    "Manifest",
    "PhotoEntry",
    "PhotoUnavailable",
    "Progress",
    "ProgressState",
    "RepairReport",
    "UnknownPhoto",
    "UpkeepReport",
    "add",
    "build",
    "compact",
    "default_index_path",
    "live_stamp",
    "open_index",
    "read_progress",
    "read_summary",
    "remove",
    "repair",
    "verify",
]

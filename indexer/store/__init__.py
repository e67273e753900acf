"""The index on disk: its folder, generations, segments, clusters and catalog, and the reader that searches use.

A search structure over the rows, such as an inverted file (FAISS's IVF) over [Ret], would be a module beside
``clusters``, with its file named in the manifest and opened by ``reader``.
"""

from indexer.store.catalog import Catalog, CatalogFile, IndexedContent, Status, read_catalog, read_drift, write_catalog
from indexer.store.clusters import (
    MOST_CELLS,
    Centroids,
    assign,
    cluster,
    default_clusters,
    normalised,
    read_centroids,
    write_centroids,
)
from indexer.store.days import DayTaken, from_column, to_column
from indexer.store.drift import Drift, mean_distance
from indexer.store.files import FileChanging, hash_file, read_below, read_start, sync_folder, write_atomically
from indexer.store.generation import (
    Generation,
    generation_files,
    live_generation,
    live_generation_if_any,
    names_in_use,
    open_rows,
    previous_generation,
)
from indexer.store.location import IndexFolder, default_index_path, generation_name, generation_number, live_stamp
from indexer.store.manifest import (
    FORMAT_VERSION,
    PRECISION,
    Counts,
    EmbedderEntry,
    FileEntry,
    Manifest,
    Origin,
    RootEntry,
    SegmentEntry,
    read_manifest,
    software_version,
)
from indexer.store.names import name_of_text, text_of_name
from indexer.store.photo_filter import PhotoFilter
from indexer.store.reader import ClusterRows, Index, PhotoEntry, open_index
from indexer.store.removals import Removals
from indexer.store.roots import FileKey, Root, locate, place_meant, resolve_roots, shown_path
from indexer.store.segment import (
    BLOCK,
    Array,
    RowArrays,
    RowRef,
    Rows,
    RowShape,
    SegmentRow,
    StagedRow,
    TokenArrays,
    map_array,
    open_segment,
    write_segment,
)
from indexer.store.stamps import FileStamp, from_columns, to_columns

__all__ = [
    "BLOCK",
    "FORMAT_VERSION",
    "MOST_CELLS",
    "PRECISION",
    "Array",
    "Catalog",
    "CatalogFile",
    "Centroids",
    "ClusterRows",
    "Counts",
    "DayTaken",
    "Drift",
    "EmbedderEntry",
    "FileChanging",
    "FileEntry",
    "FileKey",
    "FileStamp",
    "Generation",
    "Index",
    "IndexFolder",
    "IndexedContent",
    "Manifest",
    "Origin",
    "PhotoEntry",
    "PhotoFilter",
    "Removals",
    "Root",
    "RootEntry",
    "RowArrays",
    "RowRef",
    "RowShape",
    "Rows",
    "SegmentEntry",
    "SegmentRow",
    "StagedRow",
    "Status",
    "TokenArrays",
    "assign",
    "cluster",
    "default_clusters",
    "default_index_path",
    "from_column",
    "from_columns",
    "generation_files",
    "generation_name",
    "generation_number",
    "hash_file",
    "live_generation",
    "live_generation_if_any",
    "live_stamp",
    "locate",
    "map_array",
    "mean_distance",
    "name_of_text",
    "names_in_use",
    "normalised",
    "open_index",
    "open_rows",
    "open_segment",
    "place_meant",
    "previous_generation",
    "read_below",
    "read_catalog",
    "read_centroids",
    "read_drift",
    "read_manifest",
    "read_start",
    "resolve_roots",
    "shown_path",
    "software_version",
    "sync_folder",
    "text_of_name",
    "to_column",
    "to_columns",
    "write_atomically",
    "write_catalog",
    "write_centroids",
    "write_segment",
]

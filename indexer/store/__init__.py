"""Holds the index on disk: its folder, generations, segments, clusters and catalog, and the reader that searches use.

A search reads ``vectors`` first. Another structure to find photos by would take the place of this module.
"""

from indexer.store.catalog import (
    CATALOG_FILE,
    Catalog,
    GalleryFile,
    IndexedContent,
    PhotoFilter,
    Removals,
    content_columns,
    file_of_columns,
    read_catalog,
    write_catalog,
)
from indexer.store.clusters import (
    CLUSTERS_FILE,
    MAX_PATCHES,
    Centroids,
    Drift,
    assign,
    default_clusters,
    mean_distance,
    normalised,
    trained,
    training_points,
)
from indexer.store.files import (
    FileChanging,
    FileStamp,
    hash_file,
    name_of_text,
    sync_folder,
    text_of_name,
    write_array,
    write_atomically,
)
from indexer.store.folders import Address, Entry, Folder, Listing, LocalFolder
from indexer.store.generation import (
    FORMAT_VERSION,
    Counts,
    EmbedderEntry,
    FileEntry,
    Generation,
    Manifest,
    Origin,
    RootEntry,
    SegmentEntry,
    damaged_files,
    generation_files,
    keep_only,
    live_generation,
    live_generation_if_any,
    open_generation,
    open_rows,
    read_manifest,
    readable_generations,
)
from indexer.store.location import (
    IndexFolder,
    generation_name,
    generation_number,
    live_stamp,
    make_folder,
    told_if_unwritable,
)
from indexer.store.reader import Index, PhotoEntry, open_index
from indexer.store.roots import (
    FileKey,
    Root,
    folder_at,
    folder_of,
    locate,
    place_meant,
    resolve_roots,
    shown_path,
    with_folders,
)
from indexer.store.rows import (
    BLOCK,
    Array,
    Picked,
    RowArrays,
    Rows,
    SegmentRow,
    map_array,
    open_tokens,
    quantised,
    write_segment,
)
from indexer.store.shards import (
    MAX_ID,
    MAX_SHARDS,
    ShardEntry,
    ShardsFolder,
    ShardsManifest,
    clean_shard,
    shard_folders,
    shard_name,
)
from indexer.store.vectors import (
    EMBEDDINGS_FILE,
    PLACES_FILE,
    VECTORS_FILE,
    Places,
    Vectors,
    write_vectors,
)

"""What an index knows of its photos beside their tokens: the catalog, days, removals, and filters by them."""

from indexer.store.photos.catalog import (
    Catalog,
    CatalogFile,
    IndexedContent,
    Status,
    read_catalog,
    read_drift,
    write_catalog,
)
from indexer.store.photos.days import DayTaken, from_column, to_column
from indexer.store.photos.photo_filter import PhotoFilter
from indexer.store.photos.removals import Removals

__all__ = [
    "Catalog",
    "CatalogFile",
    "DayTaken",
    "IndexedContent",
    "PhotoFilter",
    "Removals",
    "Status",
    "from_column",
    "read_catalog",
    "read_drift",
    "to_column",
    "write_catalog",
]

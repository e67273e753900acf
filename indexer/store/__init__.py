"""Holds the index on disk: its folder, generations, segments, clusters and catalog, and the reader of searches."""

"""Holds the index on disk: its folder, generations, segments, clusters and catalog, and the reader that searches use.

A search reads ``vectors`` first. Another search structure would replace that module.
"""

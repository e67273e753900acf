"""Builds the next generation of an index from folders of photos."""

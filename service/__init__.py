"""The two-stage search over an index, its HTTP API and its client. Import names from their modules."""

from sketch_search import share

share(__name__)

PROGRAM = "sketch-search"

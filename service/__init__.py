"""The two-stage search over an index, its HTTP API and its client. Import names from their modules."""

PROGRAM = "sketch-search"

"""The two-stage search over an index, its HTTP API and its client.

Import names from their modules, so that a program that uses only `service.client` does not load the networks.
"""

from sketch_search.short_names import share

share(__name__)

PROGRAM = "sketch-search"

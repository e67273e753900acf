"""The two-stage search over an index, its HTTP API and its client.

Names are imported from their modules, so that a program with nothing but `service.client` does not load the networks.
"""

PROGRAM = "sketch-search"

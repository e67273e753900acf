"""The two-stage search over an index, its HTTP API and its client.

Import names from their modules, so that a program that uses only `service.client` does not load the networks.
"""

import model as model  # before NumPy, to keep its threads from spinning

PROGRAM = "sketch-search"

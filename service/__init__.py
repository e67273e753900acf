"""The two-stage search over an index, its HTTP API and its client.

Names are imported from their modules, so that a program with nothing but `service.client` does not load the networks.
"""

import model as model  # before NumPy, whose threads it keeps from spinning

PROGRAM = "sketch-search"

"""The experiments of Sketch-an-Anchor's paper: each trains or measures, and gives a table and a plot.

A row that is done is kept as JSON in the experiment's folder, and a training that was stopped goes on.
"""

from model.papers.experiments.costs import COMPARED, costs_table, draw_costs, measure_costs
from model.papers.experiments.nearest import compare_nearest, draw_nearest, nearest_table
from model.papers.experiments.rates import compare_rates, draw_rates, rates_table
from model.papers.experiments.repeats import draw_repeats, repeat, repeats_table
from model.papers.experiments.spaces import compare_spaces, draw_spaces, spaces_table
from model.papers.experiments.trials import ExperimentRequest

__all__ = [
    "COMPARED",
    "ExperimentRequest",
    "compare_nearest",
    "compare_rates",
    "compare_spaces",
    "costs_table",
    "draw_costs",
    "draw_nearest",
    "draw_rates",
    "draw_repeats",
    "draw_spaces",
    "measure_costs",
    "nearest_table",
    "rates_table",
    "repeat",
    "repeats_table",
    "spaces_table",
]

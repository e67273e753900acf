"""This room repeats papers, which no search needs: trainings by recipes, experiments, and a table of all methods."""

from model.papers.comparison.ablations import ablate, ablation_table, draw_ablation
from model.papers.comparison.costs import COMPARED, costs_table, draw_costs, measure_costs
from model.papers.comparison.experiments import (
    ExperimentRequest,
    compare_nearest,
    compare_rates,
    compare_spaces,
    draw_nearest,
    draw_rates,
    draw_repeats,
    draw_spaces,
    nearest_table,
    rates_table,
    repeat,
    repeats_table,
    spaces_table,
)
from model.papers.comparison.run import ComparisonRequest, compare, finished_rows
from model.papers.comparison.scoreboard import ScoreboardRequest, score_checkpoints, scoreboard_table
from model.papers.comparison.table import ComparisonRow, comparison_table, draw_comparison
from model.papers.recipe import Budget
from model.papers.runs import Run
from model.papers.trainings import train
from model.papers.zse.words import give_words

__all__ = [
    "COMPARED",
    "Budget",
    "ComparisonRequest",
    "ComparisonRow",
    "ExperimentRequest",
    "Run",
    "ScoreboardRequest",
    "ablate",
    "ablation_table",
    "compare",
    "compare_nearest",
    "compare_rates",
    "compare_spaces",
    "comparison_table",
    "costs_table",
    "draw_ablation",
    "draw_comparison",
    "draw_costs",
    "draw_nearest",
    "draw_rates",
    "draw_repeats",
    "draw_spaces",
    "finished_rows",
    "give_words",
    "measure_costs",
    "nearest_table",
    "rates_table",
    "repeat",
    "repeats_table",
    "score_checkpoints",
    "scoreboard_table",
    "spaces_table",
    "train",
]

"""This room repeats papers, which no search needs: trainings by recipes, experiments, and a table of all methods."""

from model.papers.comparison.ablations import ablate
from model.papers.comparison.costs import COMPARED, measure_costs
from model.papers.comparison.experiments import (
    ExperimentRequest,
    compare_nearest,
    compare_rates,
    compare_spaces,
    repeat,
)
from model.papers.comparison.run import ComparisonRequest, compare, finished_rows
from model.papers.comparison.scoreboard import ScoreboardRequest, score_checkpoints
from model.papers.comparison.table import ComparisonRow, comparison_table, draw_comparison
from model.papers.recipe import Budget
from model.papers.runs import Run
from model.papers.trainings import Outcome, train
from model.papers.zse.photo_side import make_photo_side
from model.papers.zse.words import give_words

__all__ = [
    "COMPARED",
    "Budget",
    "ComparisonRequest",
    "ComparisonRow",
    "ExperimentRequest",
    "Outcome",
    "Run",
    "ScoreboardRequest",
    "ablate",
    "compare",
    "compare_nearest",
    "compare_rates",
    "compare_spaces",
    "comparison_table",
    "draw_comparison",
    "finished_rows",
    "give_words",
    "make_photo_side",
    "measure_costs",
    "repeat",
    "score_checkpoints",
    "train",
]

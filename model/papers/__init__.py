"""This room repeats papers, which no search needs: trainings by recipes, experiments, and a table of all methods."""

from model.papers.ablations import ablate, ablation_table, draw_ablation
from model.papers.budget import Budget
from model.papers.comparison import (
    ComparisonRequest,
    ComparisonRow,
    ScoreboardRequest,
    compare,
    comparison_table,
    draw_comparison,
    finished_rows,
    score_checkpoints,
    scoreboard_table,
)
from model.papers.experiments import (
    COMPARED,
    ExperimentRequest,
    compare_nearest,
    compare_rates,
    compare_spaces,
    costs_table,
    draw_costs,
    draw_nearest,
    draw_rates,
    draw_repeats,
    draw_spaces,
    measure_costs,
    nearest_table,
    rates_table,
    repeat,
    repeats_table,
    spaces_table,
)
from model.papers.options import Run
from model.papers.runs import train
from model.papers.zse.giving_words import give_words

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

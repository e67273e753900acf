"""How well a checkpoint retrieves: scoring a corpus, figures with intervals, tables and plots."""

from model.evaluation.baselines import backbone_config
from model.evaluation.categories import measure, relevance
from model.evaluation.composites import CHANCE, COMPOSITES, measure_composites
from model.evaluation.groups import measure_groups
from model.evaluation.guesses import guess_table, measure_guesses
from model.evaluation.instances import measure_instances
from model.evaluation.per_query import intervals
from model.evaluation.plots import draw_curve, draw_intervals, draw_lines, new_figure
from model.evaluation.resampling import RESAMPLED, Interval
from model.evaluation.run import EvaluationRequest, run_evaluation
from model.evaluation.scoring import counts, encode_pictures, score_matrices

__all__ = [
    "CHANCE",
    "COMPOSITES",
    "RESAMPLED",
    "EvaluationRequest",
    "Interval",
    "backbone_config",
    "counts",
    "draw_curve",
    "draw_intervals",
    "draw_lines",
    "encode_pictures",
    "guess_table",
    "intervals",
    "measure",
    "measure_composites",
    "measure_groups",
    "measure_guesses",
    "measure_instances",
    "new_figure",
    "relevance",
    "run_evaluation",
    "score_matrices",
]

"""How well a checkpoint retrieves: figures, intervals, reports and plots."""

from model.evaluation.composites import CHANCE, COMPOSITES, measure_composites
from model.evaluation.measurement import EvaluationRequest, run_evaluation
from model.evaluation.per_query import intervals
from model.evaluation.plots import draw_curve
from model.evaluation.resampling import RESAMPLED, Interval
from model.evaluation.retrieval import counts, encode_pictures, measure, relevance, score_matrices

__all__ = [
    "CHANCE",
    "COMPOSITES",
    "RESAMPLED",
    "EvaluationRequest",
    "Interval",
    "counts",
    "draw_curve",
    "encode_pictures",
    "intervals",
    "measure",
    "measure_composites",
    "relevance",
    "run_evaluation",
    "score_matrices",
]

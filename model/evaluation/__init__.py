"""How well a checkpoint retrieves: figures, intervals, reports and plots."""

from model.evaluation.composites import CHANCE, COMPOSITES, measure_composites
from model.evaluation.measurement import Measurement, perform
from model.evaluation.per_query import intervals
from model.evaluation.plots import draw_curve
from model.evaluation.resampling import RESAMPLED, Interval
from model.evaluation.retrieval import counts, encode_pictures, measure, relevance, score_matrices

__all__ = [
    "CHANCE",
    "COMPOSITES",
    "RESAMPLED",
    "Interval",
    "Measurement",
    "counts",
    "draw_curve",
    "encode_pictures",
    "intervals",
    "measure",
    "measure_composites",
    "perform",
    "relevance",
    "score_matrices",
]

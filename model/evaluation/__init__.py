"""Measures how well a checkpoint retrieves: scores, figures, intervals, and how right explanations and words are."""

from model.evaluation.composites import CHANCE, measure_composites
from model.evaluation.figures import HARMONIC, Evaluation, measure, measure_groups, measure_instances, relevance
from model.evaluation.guesses import guess_table, measure_guesses
from model.evaluation.per_query import Interval, bootstrap, intervals
from model.evaluation.run import EvaluationRequest, run_evaluation
from model.evaluation.scoring import counts, encode_pictures, score_matrices

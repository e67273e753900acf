"""Measures how well a checkpoint retrieves, how right explanations and words are; and chooses calibrations by that."""

from model.evaluation.answers import CHANCE, guess_table, measure_composites, measure_guesses
from model.evaluation.calibration import calibrated, ret_matcher, trained_matcher
from model.evaluation.costs import costs_of
from model.evaluation.figures import (
    ALL,
    HARMONIC,
    RESAMPLED,
    TITLES,
    Evaluation,
    Interval,
    bootstrap,
    measure,
    relevance,
)
from model.evaluation.scoring import counts, encode_pictures, encoded, score_matrices, task_matrices
from model.evaluation.two_stage import search_in_two_stages

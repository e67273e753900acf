"""Measures how well a checkpoint retrieves: scores, figures, intervals, and how right explanations and words are."""

from model.evaluation.answers import CHANCE, guess_table, measure_composites, measure_guesses
from model.evaluation.figures import HARMONIC, RESAMPLED, Interval, bootstrap, measure, relevance
from model.evaluation.scoring import counts, encode_pictures, score_matrices

"""Measures a checkpoint's retrieval, explanations and words; and chooses calibrations by these measurements."""

from sketch_search.model.training.evaluation.answers import guess_table, measure_guesses, measure_parts
from sketch_search.model.training.evaluation.costs import clip_vectors, costs_of, search_in_two_stages, speeds_of
from sketch_search.model.training.evaluation.figures import (
    ALL,
    HARMONIC,
    TITLES,
    Evaluation,
    bootstrap,
    measure,
    relevance,
)
from sketch_search.model.training.evaluation.remembered import measure_clicks, measure_parting, measure_remembered
from sketch_search.model.training.evaluation.scoring import (
    calibrate,
    counts,
    encode_both,
    encode_pictures,
    ret_matcher,
    score_matrices,
    search_matrices,
    task_matrices,
    trained_matcher,
)
from sketch_search.model.training.evaluation.seen import Contamination, contamination, with_zero_shot

"""Training: a loop that goes on where it was stopped, and the calibration of the network that it leaves."""

from model.training.calibration import calibrated, encoded, trained_matcher, validation_figures
from model.training.loop import Loop, Pace, digest, warmed_cosine

__all__ = [
    "Loop",
    "Pace",
    "calibrated",
    "digest",
    "encoded",
    "trained_matcher",
    "validation_figures",
    "warmed_cosine",
]

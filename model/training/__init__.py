"""Training: a loop that goes on where it was stopped, and the calibration of the network that it leaves."""

from model.training.calibration import Validated, calibrated, trained_matcher, validation_figures
from model.training.loop import Loop, digest, warmed_cosine

__all__ = ["Loop", "Validated", "calibrated", "digest", "trained_matcher", "validation_figures", "warmed_cosine"]

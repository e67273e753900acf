"""Training by recipes, calibration on validation classes, and the table of ablations."""

from model.training.ablations import ablate, ablation_table
from model.training.recipe import RECIPES
from model.training.runs import Run, train

__all__ = [
    "RECIPES",
    "Run",
    "ablate",
    "ablation_table",
    "train",
]

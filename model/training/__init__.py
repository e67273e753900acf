"""Networks trained by recipes, and calibrated on validation classes."""

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

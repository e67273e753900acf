"""Training by recipes, calibration on validation classes, vocabularies, and the table of ablations."""

from model.training.ablations import ablate, ablation_table
from model.training.giving_words import give_words
from model.training.options import Glimpse, Run
from model.training.recipe import RECIPES
from model.training.runs import train

__all__ = [
    "RECIPES",
    "Glimpse",
    "Run",
    "ablate",
    "ablation_table",
    "give_words",
    "train",
]

"""Training by recipes, calibration on validation classes, vocabularies, and the table of ablations."""

from model.training.ablations import ablate, ablation_table
from model.training.budget import Budget, BudgetedRecipe, at_budget
from model.training.calibration import calibrated, validation_figures
from model.training.giving_words import give_words
from model.training.options import Glimpse, Run
from model.training.recipe import RECIPES, read_recipe
from model.training.runs import train

__all__ = [
    "RECIPES",
    "Budget",
    "BudgetedRecipe",
    "Glimpse",
    "Run",
    "ablate",
    "ablation_table",
    "at_budget",
    "calibrated",
    "give_words",
    "read_recipe",
    "train",
    "validation_figures",
]

"""Training by recipes, calibration on validation classes, vocabularies, and the table of ablations."""

from model.training.ablations import ablate, ablation_table, draw_ablation
from model.training.anchors import AnchorRecipe, is_anchor_recipe, read_anchor_recipe
from model.training.budget import VALIDATION_SHARE, Budget, BudgetedRecipe, at_budget
from model.training.calibration import calibrated, validation_figures
from model.training.costs import StepCosts, step_costs
from model.training.options import Glimpse, Run
from model.training.recipe import RECIPES, keep_recipe, read_recipe, recipe_file
from model.training.rows import TrainedRow, trained_row, with_interval
from model.training.runs import train
from model.training.training_set import training_corpora
from model.training.words import give_words

__all__ = [
    "RECIPES",
    "VALIDATION_SHARE",
    "AnchorRecipe",
    "Budget",
    "BudgetedRecipe",
    "Glimpse",
    "Run",
    "StepCosts",
    "TrainedRow",
    "ablate",
    "ablation_table",
    "at_budget",
    "calibrated",
    "draw_ablation",
    "give_words",
    "is_anchor_recipe",
    "keep_recipe",
    "read_anchor_recipe",
    "read_recipe",
    "recipe_file",
    "step_costs",
    "train",
    "trained_row",
    "training_corpora",
    "validation_figures",
    "with_interval",
]

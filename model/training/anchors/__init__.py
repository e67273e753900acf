"""Training networks of Sketch-an-Anchor (Ribeiro and Ponti, 2023). Equations and sections are that paper's."""

from model.training.anchors.recipe import AnchorRecipe, is_anchor_recipe, read_anchor_recipe
from model.training.anchors.run import train_anchors
from model.training.anchors.semantic import SemanticAnchors, VisualAnchors, WordAnchors
from model.training.anchors.trainer import AnchorTrainer

__all__ = [
    "AnchorRecipe",
    "AnchorTrainer",
    "SemanticAnchors",
    "VisualAnchors",
    "WordAnchors",
    "is_anchor_recipe",
    "read_anchor_recipe",
    "train_anchors",
]

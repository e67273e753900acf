"""Training networks of Sketch-an-Anchor (Ribeiro and Ponti, 2023). Equations and sections are that paper's."""

from model.papers.sketch_an_anchor.recipe import AnchorRecipe, is_anchor_recipe, read_anchor_recipe
from model.papers.sketch_an_anchor.run import train_anchors
from model.papers.sketch_an_anchor.semantic import SemanticAnchors, VisualAnchors, WordAnchors
from model.papers.sketch_an_anchor.trainer import AnchorTrainer

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

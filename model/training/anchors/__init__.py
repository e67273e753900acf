"""Training networks of Sketch-an-Anchor (Ribeiro and Ponti, 2023). Equations and sections are that paper's."""

from model.training.anchors.recipe import is_anchor_recipe, read_anchor_recipe
from model.training.anchors.run import train_anchors

__all__ = ["is_anchor_recipe", "read_anchor_recipe", "train_anchors"]

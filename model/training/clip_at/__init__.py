"""Training networks of CLIP-AT (Sain et al., 2023). Letters and equations are those of its supplementary."""

from model.training.clip_at.recipe import ClipAtRecipe, is_clip_at_recipe, read_clip_at_recipe
from model.training.clip_at.run import train_clip_at

__all__ = ["ClipAtRecipe", "is_clip_at_recipe", "read_clip_at_recipe", "train_clip_at"]

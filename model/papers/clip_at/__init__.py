"""Training networks of CLIP-AT (Sain et al., 2023). Letters and equations are those of its supplementary."""

from model.papers.clip_at.recipe import CLIP, ClipAtRecipe, is_clip_at_recipe, read_clip_at_recipe
from model.papers.clip_at.run import train_clip_at
from model.papers.clip_at.trainer import ClipAtTrainer

__all__ = ["CLIP", "ClipAtRecipe", "ClipAtTrainer", "is_clip_at_recipe", "read_clip_at_recipe", "train_clip_at"]

"""Trainings by recipes, of the default network and of those that papers describe. No search needs them."""

from model.papers.clip_at import train_clip_at
from model.papers.recipe import AnchorRecipe, ClipAtRecipe, TwoSidedRecipe, ZseRecipe, read_recipe
from model.papers.runs import Run, check_target
from model.papers.sketch_an_anchor import train_anchors
from model.papers.zse.photo_side import make_photo_side
from model.papers.zse.trainer import train_zse
from model.papers.zse.two_sided import train_two_sided
from model.papers.zse.words import give_words

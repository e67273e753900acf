"""Trainings by recipes, of the default network and of those that papers describe. No search needs them."""

from collections.abc import Callable, Mapping
from typing import Any

from model.papers.clip_at import train_clip_at
from model.papers.recipe import AnchorRecipe, ClipAtRecipe, Recipe, TwoSidedRecipe, ZseRecipe, read_recipe
from model.papers.runs import Run, check_target
from model.papers.sketch_an_anchor import train_anchors
from model.papers.zse.photo_side import make_photo_side
from model.papers.zse.trainer import train_zse
from model.papers.zse.two_sided import train_two_sided
from model.papers.zse.words import give_words

# What trains by each kind of recipe, from the recipe and the options. A call that was stopped is continued by the next.
TRAININGS: Mapping[type[Recipe], Callable[[Any, Run], None]] = {
    ZseRecipe: train_zse,
    TwoSidedRecipe: train_two_sided,
    AnchorRecipe: train_anchors,
    ClipAtRecipe: train_clip_at,
}

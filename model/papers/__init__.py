"""Trains the default network, and networks that papers describe, by recipes. No search needs this package."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from model.papers.clip_at import clip_at_trainer
from model.papers.recipe import AnchorRecipe, ClipAtRecipe, Recipe, TwoSidedRecipe, ZseRecipe, read_recipe
from model.papers.runs import Run, check_target, train_from_backbone
from model.papers.sketch_an_anchor import anchor_trainer
from model.papers.zse.photo_side import make_photo_side
from model.papers.zse.trainer import zse_trainer
from model.papers.zse.two_sided import train_two_sided
from model.papers.zse.words import give_words

# The function that trains by each kind of recipe, from the recipe and the options. The next call continues a training
# that was stopped.
TRAININGS: Mapping[type[Recipe], Callable[[Any, Run], None]] = {
    ZseRecipe: partial(train_from_backbone, zse_trainer),
    TwoSidedRecipe: train_two_sided,
    AnchorRecipe: partial(train_from_backbone, anchor_trainer),
    ClipAtRecipe: partial(train_from_backbone, clip_at_trainer),
}

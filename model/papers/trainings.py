"""Trains a network by any recipe."""

from __future__ import annotations

from collections.abc import Callable

from model.papers.clip_at import train_clip_at
from model.papers.recipe import AnchorRecipe, ClipAtRecipe, TwoSidedRecipe, read_recipe
from model.papers.runs import Run, check_target
from model.papers.sketch_an_anchor import train_anchors
from model.papers.zse.trainer import train_zse
from model.papers.zse.two_sided import train_two_sided


def train(run: Run, report: Callable[[str], object]) -> bool:
    """Trains a network of the kind that the recipe is for.

    ``report`` gets sentences about the progress.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    Raises ModelError for a recipe, backbone, start, word vectors or data that do not fit together.
    """
    # First what takes no time: preparing many pictures takes minutes, and a training hours.
    recipe = read_recipe(run.recipe)
    check_target(run.target, run.folder)
    if isinstance(recipe, AnchorRecipe):
        return train_anchors(recipe, run, report)
    if isinstance(recipe, ClipAtRecipe):
        return train_clip_at(recipe, run, report)
    if isinstance(recipe, TwoSidedRecipe):
        return train_two_sided(recipe, run, report)
    return train_zse(recipe, run, report)

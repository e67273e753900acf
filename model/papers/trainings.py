"""Maps each kind of recipe to the function that trains by it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sketch_search.model.papers.clip_at import clip_at_trainer
from sketch_search.model.papers.recipe import AnchorRecipe, ClipAtRecipe, Recipe, TwoSidedRecipe, ZseRecipe
from sketch_search.model.papers.runs import Run, train_from_backbone
from sketch_search.model.papers.sketch_an_anchor import anchor_trainer
from sketch_search.model.papers.two_sided import train_two_sided
from sketch_search.model.papers.zse import zse_trainer

# The function that trains by each kind of recipe, from the recipe and the options. The next call continues a training
# that was stopped.
TRAININGS: Mapping[type[Recipe], Callable[[Any, Run], None]] = {
    ZseRecipe: partial(train_from_backbone, zse_trainer),
    TwoSidedRecipe: train_two_sided,
    AnchorRecipe: partial(train_from_backbone, anchor_trainer),
    ClipAtRecipe: partial(train_from_backbone, clip_at_trainer),
}

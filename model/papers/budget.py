"""Recipes at another budget: so many pictures, of one size, at another learning rate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError
from model.papers.clip_at import ClipAtRecipe, is_clip_at_recipe, read_clip_at_recipe
from model.papers.recipe import Recipe, read_recipe
from model.papers.sketch_an_anchor import AnchorRecipe, is_anchor_recipe, read_anchor_recipe

AnyRecipe = Recipe | AnchorRecipe | ClipAtRecipe
# The learning rates of each kind, of which the first is that of what is learned of the pretrained ViT.
_RATES: dict[type[AnyRecipe], tuple[str, ...]] = {
    Recipe: ("encoder_rate", "head_rate"),
    AnchorRecipe: ("rate", "last_rate"),
    ClipAtRecipe: ("encoder_rate", "prompt_rate", "text_rate"),
}
# Share of the steps that the warm-up takes at most.
_MOST_WARMUP = 0.2
# Saved states of a training.
_SAVES = 8


# How often a training is measured, and on every how manyth validation query and photo, unless a budget says otherwise.
VALIDATIONS, VALIDATION_SHARE = 5, 4


@dataclass(frozen=True)
class Budget:
    """What a training may cost, and how often it is looked at.

    Attributes:
        pictures: how many it sees, repeats counted. It makes as many whole steps as fit.
        image_size: side of the pictures in pixels.
        validations: how often the network is measured on validation classes, evenly spread, and at the end in any case.
        evaluate_share: n measures it on every n-th validation query and photo.
    """

    pictures: int
    image_size: int
    validations: int = VALIDATIONS
    evaluate_share: int = VALIDATION_SHARE


@dataclass(frozen=True)
class BudgetedRecipe:
    """A recipe at a budget.

    Attributes:
        text: the TOML of a recipe, whose base is the first one.
        rate: the learning rate of the pretrained ViT, or of what is trained in it; the other rates have changed by the
            same factor.
        pictures: how many it sees in all steps.
    """

    text: str
    rate: float
    pictures: int


def at_budget(recipe: Path, budget: Budget, factor: float = 1.0) -> BudgetedRecipe:
    """A recipe of any kind at a budget, with its learning rates multiplied by ``factor``.

    recipe: a file, or the name of one without an ending. Raises ModelError for one that cannot be used, and for a
    budget below one step.
    """
    first = _read(recipe)
    each = first.pictures // first.steps
    steps = _steps(recipe, budget, each)
    if isinstance(first, Recipe):
        length, network = f"phases = [{{ image_size = {budget.image_size}, steps = {steps} }}]", ""
    else:
        length, network = f"steps = {steps}", f"[network]\nimage_size = {budget.image_size}\n"
    rates = {name: _scaled(getattr(first.optimiser, name), factor) for name in _RATES[type(first)]}
    lines = [
        # A quoted JSON string is a TOML string, too.
        f"base = {json.dumps(str(recipe), ensure_ascii=False)}",
        length,
        f"save_every = {-(-steps // _SAVES)}",
        f"evaluate_every = {-(-steps // budget.validations)}",
        f"evaluate_share = {budget.evaluate_share}",
        f"{network}[optimiser]",
        *(f"{name} = {value!r}" for name, value in rates.items()),
        f"warmup = {max(1, min(first.optimiser.warmup, int(_MOST_WARMUP * steps)))}",
    ]
    return BudgetedRecipe("\n".join(lines) + "\n", next(iter(rates.values())), each * steps)


def _read(recipe: Path) -> AnyRecipe:
    if is_anchor_recipe(recipe):
        return read_anchor_recipe(recipe)
    return read_clip_at_recipe(recipe) if is_clip_at_recipe(recipe) else read_recipe(recipe)


def _steps(recipe: Path, budget: Budget, each: int) -> int:
    if budget.pictures < each:
        raise ModelError(f"a step of {recipe} sees {each} pictures, so a budget of {budget.pictures} is too small")
    return budget.pictures // each


def _scaled(rate: float, factor: float) -> float:
    """The product, without the digits that are rounding errors."""
    return float(f"{rate * factor:.6g}")

"""Recipes at another budget: so many pictures, of one size, at another learning rate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError
from model.training.anchors import is_anchor_recipe, read_anchor_recipe
from model.training.clip_at import is_clip_at_recipe, read_clip_at_recipe
from model.training.recipe import read_recipe

# Share of the steps that the warm-up takes at most.
_MOST_WARMUP = 0.2
# Saved states of a training.
_SAVES = 8


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
    validations: int
    evaluate_share: int


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
    if is_anchor_recipe(recipe):
        anchors = read_anchor_recipe(recipe)
        each = anchors.pictures // anchors.steps
        steps = _steps(recipe, budget, each)
        rate, warmup = _scaled(anchors.optimiser.rate, factor), anchors.optimiser.warmup
        rates = {"rate": rate, "last_rate": _scaled(anchors.optimiser.last_rate, factor)}
        length = f"steps = {steps}"
        network = f"[network]\nimage_size = {budget.image_size}\n"
    elif is_clip_at_recipe(recipe):
        clip_at = read_clip_at_recipe(recipe)
        each = clip_at.pictures // clip_at.steps
        steps = _steps(recipe, budget, each)
        rate, warmup = _scaled(clip_at.optimiser.encoder_rate, factor), clip_at.optimiser.warmup
        rates = {
            "encoder_rate": rate,
            "prompt_rate": _scaled(clip_at.optimiser.prompt_rate, factor),
            "text_rate": _scaled(clip_at.optimiser.text_rate, factor),
        }
        length = f"steps = {steps}"
        network = f"[network]\nimage_size = {budget.image_size}\n"
    else:
        zse = read_recipe(recipe)
        each = zse.pictures // zse.steps
        steps = _steps(recipe, budget, each)
        rate, warmup = _scaled(zse.optimiser.encoder_rate, factor), zse.optimiser.warmup
        rates = {"encoder_rate": rate, "head_rate": _scaled(zse.optimiser.head_rate, factor)}
        length = f"phases = [{{ image_size = {budget.image_size}, steps = {steps} }}]"
        network = ""
    lines = [
        # A quoted JSON string is a TOML string, too.
        f"base = {json.dumps(str(recipe), ensure_ascii=False)}",
        length,
        f"save_every = {-(-steps // _SAVES)}",
        f"evaluate_every = {-(-steps // budget.validations)}",
        f"evaluate_share = {budget.evaluate_share}",
        f"{network}[optimiser]",
        *(f"{name} = {value!r}" for name, value in rates.items()),
        f"warmup = {max(1, min(warmup, int(_MOST_WARMUP * steps)))}",
    ]
    return BudgetedRecipe("\n".join(lines) + "\n", rate, each * steps)


def _steps(recipe: Path, budget: Budget, each: int) -> int:
    if budget.pictures < each:
        raise ModelError(f"a step of {recipe} sees {each} pictures, so a budget of {budget.pictures} is too small")
    return budget.pictures // each


def _scaled(rate: float, factor: float) -> float:
    """The product, without the digits that are rounding errors."""
    return float(f"{rate * factor:.6g}")

"""Reads recipes of trainings from TOML files, and maps each kind to the function that trains by it."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from sketch_search.model.errors import ModelError
from sketch_search.model.training.network import AnchorNetwork, Network, RetNetwork
from sketch_search.model.training.papers.clip_at import ClipAtRecipe, clip_at_trainer
from sketch_search.model.training.papers.recipe import Recipe, merge, read_content, recipe_file, unusable
from sketch_search.model.training.papers.sketch_an_anchor import AnchorRecipe, anchor_trainer
from sketch_search.model.training.papers.trainer import Run, train_from_backbone
from sketch_search.model.training.papers.two_sided import TwoSidedRecipe, train_two_sided
from sketch_search.model.training.papers.zse import ZseRecipe, zse_trainer

AnyRecipe: TypeAlias = ZseRecipe | TwoSidedRecipe | AnchorRecipe | ClipAtRecipe


_KINDS: dict[str | None, TypeAdapter[AnyRecipe]] = {
    kind.method: TypeAdapter(kind) for kind in (ZseRecipe, TwoSidedRecipe, AnchorRecipe, ClipAtRecipe)
}


def read_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> AnyRecipe:
    """Reads a recipe from a TOML file, or by a name such as "zse/paper", with ``changes`` of its keys.

    The key ``base`` names a recipe that this one changes, table by table; ``method`` the method, ZSE-SBIR without.
    Raises ModelError for a file that cannot be used, with its name and what is wrong in it.
    """
    path = recipe_file(path)
    try:
        content = merge(read_content(path), changes or {})
        method = content.pop("method", None)
        if method not in _KINDS:
            raise ValueError(f"there is no method {method!r}")
        recipe = _KINDS[method].validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise unusable(path, why, changes) from error
    except RecursionError as error:
        raise unusable(path, "it is its own base, or nested too deeply") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise unusable(path, str(error), changes) from error
    try:
        recipe.check()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return recipe


def network_of(recipe: AnyRecipe) -> RetNetwork:
    """Makes the network of a recipe with random weights. Raises ModelError if its backbone decides what it is."""
    if isinstance(recipe, ZseRecipe):
        return Network(recipe.config).eval()
    if isinstance(recipe, AnchorRecipe):
        return AnchorNetwork(recipe.config).eval()
    raise ModelError(f"the network of a recipe of {recipe.title} depends on its backbone; name a checkpoint")


# The function that trains by each kind of recipe, from the recipe and the options. The next call continues a training
# that was stopped.
TRAININGS: Mapping[type[Recipe], Callable[[Any, Run], None]] = {
    ZseRecipe: partial(train_from_backbone, zse_trainer),
    TwoSidedRecipe: train_two_sided,
    AnchorRecipe: partial(train_from_backbone, anchor_trainer),
    ClipAtRecipe: partial(train_from_backbone, clip_at_trainer),
}

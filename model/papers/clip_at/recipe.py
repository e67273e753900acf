"""The recipe of a training of CLIP-AT: one frozen object, read from a TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model.errors import ModelError
from model.network import ClipAtConfig, ClipAtNetwork, PretrainedVit, VitSizes
from model.papers.recipe import check_at_least, recipe_file, recipe_method, recipe_of
from model.papers.vector_runs import OneVectorRecipe

# What a recipe has as its backbone where ``--backbone`` names a CLIP.
CLIP = "clip"
# How a set of relative distances is made a distribution; see ``Losses.distribution``.
Spread = Literal["density", "softmax"]


@dataclass(frozen=True)
class Losses:
    """The losses and their weights; 0 switches one off. The supplementary gives no weights.

    Attributes:
        triplet: weight of the triplet loss on cosine distances. margin: its margin; 0.2 is that of the public code.
        classes: weight of the classification by the text vectors of the training's classes.
        temperature: of its cosines; 0.01 is where CLIP's own training ends.
        divergence: weight of the average divergence of the categories (C); fine-grained only. The triplet loss is about
            0.1 and the divergence about 1, so that 0.1 makes them count alike.
        distribution: how the relative distances of a category become a distribution: their "density", by kernels of
            the width ``bandwidth``, or the "softmax" of them in ascending order. A softmax does not change where all
            distances of a category are larger by the same, so that only the density makes one margin fit all.
        patches: weight of the triplet loss on shuffled patches; fine-grained only. patch_margin: its margin.
        patch_grid: into how many rows and columns of patches a picture is cut. Finer grids leave less of what a part
            is; with 2 there are 24 orders, and halves of things are still to be seen.
    """

    triplet: float = 1.0
    margin: float = 0.2
    classes: float = 1.0
    temperature: float = 0.01
    divergence: float = 0.1
    distribution: Spread = "density"
    bandwidth: float = 0.1
    patches: float = 1.0
    patch_margin: float = 0.2
    patch_grid: int = 2


@dataclass(frozen=True)
class ClipAtOptimiser:
    """Adam with a linear warm-up and a cosine decay.

    Attributes:
        encoder_rate: of the LayerNorms, all that is learned of the encoder; 1e-6 is that of the public code.
        prompt_rate: of the prompts; 1e-4 is that of the public code.
        text_rate: of the projection to the text vectors, which only a ViT of timm needs.
        warmup: steps.
        last: the share of the rates that is left at the end; 1 for constant rates, as the public code has them.
        clip: the largest norm of the gradients.
        average: how much of the running average of what is learned is kept at each step; 0 for no average.
    """

    encoder_rate: float = 1e-6
    prompt_rate: float = 1e-4
    text_rate: float = 1e-3
    warmup: int = 20
    last: float = 1.0
    clip: float = float("inf")
    average: float = 0.0


@dataclass(frozen=True)
class ClipAtRecipe(OneVectorRecipe):
    """A whole training of CLIP-AT. What is not explained here is as in ``model.papers.recipe.Recipe``.

    The supplementary names no number of prompts, epochs or weights: such fields have values that are chosen here.

    Attributes:
        method: marks recipes of this kind.
        backbone: timm's name of the ViT's architecture; "clip" where ``--backbone`` names a CLIP of open_clip.
        level: what is learned: the "category" of a thing, with an encoder for sketches and one for photos, or
            "fine-grained" pairs, with one encoder for both (A).
        network: further fields of ``ClipAtConfig``, such as ``prompts``, of which the public code has 3; and ``sizes``,
            those of ``VitSizes``, of a ViT that differs from timm's.
        batch: sketches of a step, each with a photo.
        categories: how many categories the pairs of a fine-grained step are of, in equal numbers. Each sketch has to
            find its photo among those of its category in the batch.
        augment: whether pictures of categories are varied; the paper does not speak of it.
        names: for classes that the word vectors do not have, the words whose vectors are averaged; only for a ViT of
            timm, since CLIP reads any name.
    """

    method: Literal["clip-at"]
    backbone: str
    level: Literal["category", "fine-grained"] = "category"
    network: dict[str, Any] = field(default_factory=dict)
    split: tuple[str, ...] = ("train",)
    hold_out: bool = False
    data_set: str | None = None
    steps: int = 1500
    batch: int = 16
    categories: int = 4
    augment: bool = False
    losses: Losses = Losses()
    optimiser: ClipAtOptimiser = ClipAtOptimiser()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0
    save_every: int = 50
    evaluate_every: int = 250
    evaluate_share: int = 3
    choose_share: int = 1
    bf16: bool = True

    @property
    def pictures(self) -> int:
        """How many pictures the network sees in the whole training, shuffled ones among them: its budget."""
        shuffled = 3 if self.fine_grained and self.losses.patches else 0
        return self.steps * self.batch * (2 + shuffled)

    @property
    def fine_grained(self) -> bool:
        """Whether each sketch has to find the very photo that it was drawn from."""
        return self.level == "fine-grained"

    @property
    def sizes(self) -> VitSizes | None:
        """Of a ViT that differs from timm's of that name. Raises ModelError for unknown or unusable ones."""
        try:
            return VitSizes(**self.network["sizes"]) if "sizes" in self.network else None
        except TypeError as error:
            raise ModelError(f"the recipe's table [network.sizes] cannot be used: {error}") from error

    def config(self, vit: PretrainedVit) -> ClipAtConfig:
        """The configuration of the network that starts from this ViT. Raises ModelError for unknown fields."""
        changes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in self.network.items()}
        changes.pop("sizes", None)
        given = {"name": self.method, "image_size": vit.image_size, "mean": vit.mean, "std": vit.std, **changes}
        shared = self.fine_grained
        try:
            changed = ClipAtConfig(vit=vit.layout, shared_prompts=shared, shared_norms=shared, **given)
        except TypeError as error:
            raise ModelError(f"the recipe's [network] table has an unknown field: {error}") from error
        # What a checkpoint with these values would be refused for.
        return ClipAtConfig.from_json(changed.to_json())


def is_clip_at_recipe(path: Path) -> bool:
    """Whether a recipe is one of this kind; False for a file that cannot be read. Raises ModelError for none at all."""
    return recipe_method(path) == ClipAtNetwork.kind


def read_clip_at_recipe(path: Path) -> ClipAtRecipe:
    """Reads such a recipe from TOML, as ``model.papers.recipe.read_recipe`` reads others.

    Raises ModelError naming the file and what is wrong in it.
    """
    path = recipe_file(path)
    recipe = recipe_of(path, ClipAtRecipe, _fields)
    _check(recipe, path)
    return recipe


def _fields(content: dict[str, Any]) -> dict[str, Any]:
    for name, table in (("losses", Losses), ("optimiser", ClipAtOptimiser)):
        content[name] = table(**content.get(name, {}))
    content["split"] = tuple(content.get("split", ("train",)))
    content["names"] = {label: tuple(words) for label, words in content.get("names", {}).items()}
    return content


def _check(recipe: ClipAtRecipe, path: Path) -> None:
    if "unseen" in recipe.split and "ship" not in recipe.split:
        raise ModelError(f'{path}: a recipe may train on "unseen" only together with "ship"')
    counts = {
        "steps": (recipe.steps, 1),
        "batch": (recipe.batch, 2),
        "save_every": (recipe.save_every, 1),
        "evaluate_every": (recipe.evaluate_every, 1),
        "evaluate_share": (recipe.evaluate_share, 1),
        "choose_share": (recipe.choose_share, 1),
        "optimiser.warmup": (recipe.optimiser.warmup, 1),
        "losses.patch_grid": (recipe.losses.patch_grid, 2),
    }
    check_at_least(path, counts)
    losses = recipe.losses
    if not losses.temperature > 0 or not losses.bandwidth > 0 or not 0 <= recipe.optimiser.last <= 1:
        raise ModelError(f"{path}: temperature and bandwidth must be above 0, and optimiser.last lie in [0, 1]")
    if not losses.triplet and not losses.classes:
        raise ModelError(f"{path}: all losses are switched off")
    if recipe.fine_grained:
        if recipe.categories < 2 or recipe.batch % recipe.categories or recipe.batch < 2 * recipe.categories:
            raise ModelError(f"{path}: a fine-grained batch needs 2 categories or more, with 2 pairs or more of each")
        if recipe.augment:
            raise ModelError(f"{path}: a fine-grained recipe cannot augment, since pairs would be varied apart")
    if fixed := {"prototypes", "words", "vit", "shared_prompts", "shared_norms"} & set(recipe.network):
        raise ModelError(
            f"{path}: [network] may not set {', '.join(sorted(fixed))}, which level, backbone or what comes after the "
            "training decide"
        )

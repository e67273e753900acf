"""The recipe of a training of Sketch-an-Anchor: one frozen object, read from a TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model.errors import ModelError
from model.network import AnchorConfig, AnchorNetwork, VitSizes
from model.papers.recipe import check_at_least, recipe_file, recipe_method, recipe_of
from model.papers.vector_runs import OneVectorRecipe


@dataclass(frozen=True)
class Anchoring:
    """What is done with the anchors (sections 3.4 and 3.5).

    Attributes:
        graph: layers of the graph convolution that adapts the anchors; 0 leaves them as they are.
        randomised: whether each step draws its anchors.
        neighbours: the nearest words that a class's word may be swapped for, and ``swap`` the share of words that are.
            The paper says 10, and of the share nothing.
        sharpness: what similarities of anchors are multiplied by before the softmax, in the targets and in the graph.
            The equations have none, which is 1. Cosines of 100 and more classes then become targets that are nearly
            equal for all.
    """

    graph: int = 4
    randomised: bool = True
    neighbours: int = 10
    swap: float = 0.5
    sharpness: float = 10.0


@dataclass(frozen=True)
class AnchorOptimiser:
    """Adam with a linear warm-up and a cosine decay (section 4.2).

    Attributes:
        rate: after the warm-up. last_rate: at the end; equal to ``rate`` for a constant rate.
        warmup: steps.
        backbone_gradient: factor of the gradient that enters the ViT. Adam divides gradients by their own size, so
            that it changes little.
        backbone_rate: factor of the learning rate of the ViT.
        epsilon: of Adam; 1e-7 is that of TensorFlow, which the paper used.
        clip: the largest norm of the gradients.
        average: how much of the running average of the weights is kept at each step; 0 for no average.
    """

    rate: float = 5e-6
    last_rate: float = 1e-6
    warmup: int = 150
    backbone_gradient: float = 0.1
    backbone_rate: float = 1.0
    epsilon: float = 1e-7
    clip: float = float("inf")
    average: float = 0.0


@dataclass(frozen=True)
class ChosenPhotos:
    """The few photos of each class that a training sees (section 4.5): those nearest to the class's visual anchor.

    The anchors stay those of all photos.

    Attributes:
        count: of each class; a class that has fewer gives all.
        farthest: take the farthest ones instead.
    """

    count: int
    farthest: bool = False


@dataclass(frozen=True)
class AnchorRecipe(OneVectorRecipe):
    """A whole training of Sketch-an-Anchor. What is not explained here is as in ``model.papers.recipe.Recipe``.

    Attributes:
        method: marks recipes of this kind.
        backbone: timm's name of the ViT's architecture.
        network: further fields of ``AnchorConfig``: ``anchors`` says which anchors there are, none for the baseline.
        batch: sketches of a step, each with a photo of its class.
        temperature: of all losses; the paper does not name it.
        augment: whether pictures are varied; the paper does not speak of it.
        names: for classes that the word vectors do not have, the words whose vectors are averaged.
        photos: the few of each class that are trained on; None for all.
    """

    method: Literal["sketch-an-anchor"]
    backbone: str
    network: dict[str, Any] = field(default_factory=dict)
    split: tuple[str, ...] = ("train",)
    hold_out: bool = False
    data_set: str | None = None
    steps: int = 1500
    batch: int = 16
    temperature: float = 0.07
    augment: bool = False
    anchoring: Anchoring = Anchoring()
    optimiser: AnchorOptimiser = AnchorOptimiser()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # A saved training knows its photos by their key. Without this text, trainings from before this field go on.
    photos: ChosenPhotos | None = field(default=None, repr=False)
    seed: int = 0
    save_every: int = 50
    evaluate_every: int = 250
    evaluate_share: int = 3
    choose_share: int = 1
    bf16: bool = True

    @property
    def pictures(self) -> int:
        """How many pictures the network sees in the whole training: its budget."""
        return self.steps * 2 * self.batch

    @property
    def config(self) -> AnchorConfig:
        """The configuration of the network. Raises ModelError for unknown fields."""
        changes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in self.network.items()}
        try:
            if "sizes" in changes:
                changes["sizes"] = VitSizes(**changes["sizes"])
            changed = AnchorConfig(**{"name": self.method, "backbone": self.backbone, **changes})
        except TypeError as error:
            raise ModelError(f"the recipe's [network] table has an unknown field: {error}") from error
        # What a checkpoint with these values would be refused for.
        return AnchorConfig.from_json(changed.to_json())


def is_anchor_recipe(path: Path) -> bool:
    """Whether a recipe is one of this kind; False for a file that cannot be read. Raises ModelError for none at all."""
    return recipe_method(path) == AnchorNetwork.kind


def read_anchor_recipe(path: Path) -> AnchorRecipe:
    """Reads such a recipe from TOML, as ``model.papers.recipe.read_recipe`` reads others.

    Raises ModelError naming the file and what is wrong in it.
    """
    path = recipe_file(path)
    recipe = recipe_of(path, AnchorRecipe, _fields)
    _check(recipe, path)
    return recipe


def _fields(content: dict[str, Any]) -> dict[str, Any]:
    for name, table in (("anchoring", Anchoring), ("optimiser", AnchorOptimiser)):
        content[name] = table(**content.get(name, {}))
    if "photos" in content:
        content["photos"] = ChosenPhotos(**content["photos"])
    content["split"] = tuple(content.get("split", ("train",)))
    content["names"] = {label: tuple(words) for label, words in content.get("names", {}).items()}
    return content


def _check(recipe: AnchorRecipe, path: Path) -> None:
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
        "anchoring.graph": (recipe.anchoring.graph, 0),
        "anchoring.neighbours": (recipe.anchoring.neighbours, 0),
        "photos.count": (recipe.photos.count if recipe.photos else 1, 1),
    }
    check_at_least(path, counts)
    if not recipe.temperature > 0 or not 0 <= recipe.anchoring.swap <= 1:
        raise ModelError(f"{path}: temperature must be above 0, and anchoring.swap lie in [0, 1]")
    if {"prototypes", "words"} & set(recipe.network):
        raise ModelError(f"{path}: [network] may not set prototypes or words, which are made after a training")
    _ = recipe.config

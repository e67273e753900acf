"""Defines what recipes of all methods have; each method has a recipe of its own beside its training."""

import dataclasses
import json
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from pydantic import ConfigDict, Field

from sketch_search.model.engine import Method, NetworkConfig, from_json
from sketch_search.model.errors import ModelError
from sketch_search.model.torch import VitLayout, multiplies_bf16, vit_layout

# Recipes of the published checkpoints and tables lie here.
RECIPES = Path(__file__).parent / "recipes"

# How long a training is and how it is watched: one goes on if these alone differ.
_FREE = ("steps", "save_every", "evaluate_every", "evaluate_share", "choose_share")

Count = Annotated[int, Field(ge=1)]
# PyTorch takes no larger ones.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Several = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Config = TypeVar("Config", bound=NetworkConfig)


class Table:
    """A table of a recipe's file. It refuses unknown keys."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Optimiser(Table):
    """The part of an optimiser that all methods have. Rates rise linearly at first, and then fall by a cosine."""

    warmup: Count  # steps in which the learning rates rise
    clip: float = float("inf")  # the largest norm of the gradients
    average: float = 0.0  # the share of the running average of the weights that each step keeps; 0 for no average
    last: Share = 1.0  # the share of the rates that is left at the end; 1 for constant rates


@dataclass(frozen=True, kw_only=True)
class Recipe(Table, ABC):
    """A training of any method.

    network: fields of the network's configuration that differ. With ``sizes``, such as embed_dim and depth, a ViT
        differs from timm's ViT of the same name.
    split: parts of the data's split.json that are trained on; "thin" means the classes that it leaves out. The
        calibration is chosen on "val"; a training that uses "val" keeps the calibration of its start. Class folders
        (--data) have the parts "train" and "val" only: without "val" every fifth class is left for it. In data/more,
        "more" has classes with sketches alone, "imagenet1k" with photos alone, and "ship" with both. In data/more3,
        "drawings" has line drawings of many kinds, a few of each, and "pacs" sketches of animals and people. "unseen"
        and "pacs" may be trained on only with "ship": then no figure of the network is zero-shot. Or one of
        STANDARD_SPLITS alone: the seen classes, by the sketches of its data set and the photos of all sets; every fifth
        class is left for the calibration.
    hold_out: leaves out of training the photos that galleries of the generalised protocol show.
    data_set: the one set of the optional data whose sketches are trained on, with the photos that go with it; "" or
        None for all sets.
    seed: decides all random choices of a step, together with the step's number.
    save_every, evaluate_every: steps between saved states, and between evaluations on the validation classes.
    evaluate_share, choose_share: n uses every n-th validation query and photo for these evaluations, and to choose the
        calibration at the end.
    bf16: whether to compute in bfloat16 on a GPU, and on a CPU that is faster with it.
    """

    method: ClassVar[str | None] = None  # its name in recipes
    title: ClassVar[str]
    fixed: ClassVar[tuple[str, ...]]  # names that the table [network] may not have
    further: ClassVar[bool] = False  # whether classes that lack sketches or photos are used, too

    network: dict[str, Any] = field(default_factory=dict)
    split: tuple[str, ...] = ("train",)
    hold_out: bool = False
    data_set: str | None = None
    steps: Count
    optimiser: Optimiser
    seed: Seed = 0
    save_every: Count = 50
    evaluate_every: Count = 250
    evaluate_share: Count = 3
    choose_share: Count = 1
    bf16: bool = True

    @property
    def identity(self) -> str:
        """Tells trainings apart, by all keys but _FREE."""
        alike: dict[str, Any] = dict.fromkeys(_FREE, 1)
        return repr(dataclasses.replace(self, **alike))

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods of scoring that the losses train."""
        return ("ret",)

    @property
    @abstractmethod
    def pictures(self) -> int:
        """The number of pictures that a step sees."""

    @property
    def fewest_classes(self) -> int:
        """The number of classes that a training needs."""
        return 2

    @property
    def dtype(self) -> torch.dtype:
        """The precision to compute in on this machine."""
        return torch.bfloat16 if self.bf16 and multiplies_bf16() else torch.float32

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """The precision to compute in on a device: all GPUs that run PyTorch multiply bfloat16."""
        return torch.bfloat16 if self.bf16 and device.type == "cuda" else self.dtype

    def check(self) -> None:
        """Raises ModelError for values that do not fit together."""
        if {"unseen", "pacs"} & set(self.split) and "ship" not in self.split:
            raise ModelError('a recipe may train on "unseen" and "pacs" only together with "ship"')
        # Words, prototypes and what is drawn are parts that come later.
        if fixed := sorted({"prototypes", "words", "drawn", *self.fixed} & set(self.network)):
            raise ModelError(f"[network] may not set {', '.join(fixed)}, which is decided elsewhere")

    def configure(self, kind: type[Config], **defaults: Any) -> Config:
        """Makes the configuration from these values and the table [network]. Raises ModelError for unusable ones."""
        values = {**defaults, **{name: value for name, value in self.network.items() if name != "sizes"}}
        return from_json(kind, json.dumps(values, default=dataclasses.asdict), "the recipe's table [network]")


@dataclass(frozen=True, kw_only=True)
class VectorRecipe(Recipe):
    """A training of any network that has one vector for each image.

    backbone: timm's name, or "clip" if ``--backbone`` names a CLIP. batch: sketches of a step, each with a photo.
    names: words whose vectors are averaged for classes that the word vectors lack.
    """

    backbone: str
    steps: Count = 1500
    batch: Several = 16
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        return 2 * self.batch

    @property
    def image_size(self) -> int:
        """The side of the network's input in pixels."""
        return int(self.network.get("image_size", 224))

    @property
    def layout(self) -> VitLayout:
        """The layout of timm's ViT of this name and these sizes. Raises ModelError if timm has none."""
        return vit_layout(self.backbone, self.image_size, self.network.get("sizes"))


def changes_of(settings: Sequence[str]) -> dict[str, Any]:
    """Reads changes such as "steps=300" or "optimiser.encoder_rate=1e-5" as TOML or a word. Raises ModelError."""
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise ModelError(f"--set {setting} has no value; write KEY=VALUE, such as optimiser.warmup=20")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *tables, name = key.split(".")
        into = changes
        for table in tables:
            into = into.setdefault(table, {})
        into[name] = value
    return changes


def recipe_file(path: Path) -> Path:
    """Finds the file that a path or a name means. Raises ModelError, with the known names, if there is none."""
    file = path if path.suffix else RECIPES / f"{path}.toml"
    if not file.is_file():
        files = (toml.relative_to(RECIPES).with_suffix("").as_posix() for toml in RECIPES.rglob("*.toml"))
        known = sorted(name for name in files if not name.startswith("tables/"))
        raise ModelError(f"there is no recipe {path}; name a file that ends in .toml, or one of {', '.join(known)}")
    return file


def read_content(path: Path) -> dict[str, Any]:
    """Reads the keys of a recipe, over the keys of its base."""
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    base = content.pop("base", None)
    if base is None:
        return content
    return merge(read_content(path.parent / base if Path(base).suffix else recipe_file(Path(base))), content)


def merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Puts changes over the keys, table by table."""
    joined = {name: content.get(name, {}) | value for name, value in changes.items() if isinstance(value, dict)}
    return {**content, **changes, **joined}


def unusable(path: Path, why: str, changes: object = None) -> ModelError:
    changed = ", as it was changed," if changes else ""
    known = "training/papers/recipe.py and the method's module beside it say which keys there are"
    return ModelError(f"{path}{changed} is not a usable training recipe: {why}; {known}")

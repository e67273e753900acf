"""Reads recipes of trainings from TOML files, as one frozen object for each method."""

import dataclasses
import json
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sketch_search.model.engine import TWO_SIDED, Method, NetworkConfig, TwoSidedConfig, ZseConfig, from_json, preset
from sketch_search.model.errors import ModelError
from sketch_search.model.network import (
    AnchorConfig,
    AnchorNetwork,
    ClipAtConfig,
    ClipAtNetwork,
    Network,
    PretrainedVit,
    RetNetwork,
    VitLayout,
    multiplies_bf16,
    vit_layout,
)

# Recipes of the published checkpoints and tables lie here.
RECIPES = Path(__file__).parent / "recipes"
# The backbone in a recipe of CLIP-AT if ``--backbone`` names a CLIP.
CLIP = "clip"

# How long a training is and how it is watched: one goes on if these alone differ.
_FREE = ("steps", "save_every", "evaluate_every", "evaluate_share", "choose_share")

Count = Annotated[int, Field(ge=1)]
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
    seed: int = 0
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

    def configure(self, kind: type[Config], **given: Any) -> Config:
        """Makes the configuration from these values and the table [network]. Raises ModelError for unusable ones."""
        values = {**given, **{name: value for name, value in self.network.items() if name != "sizes"}}
        return from_json(kind, json.dumps(values, default=dataclasses.asdict), "the recipe's table [network]")


@dataclass(frozen=True)
class Samples(Table):
    """ZSE-SBIR's samples and losses (section 3.6); see ``ZseTrainer``.

    count: how many samples a step has.
    pairs: "all" compares each sketch of a step with each photo (eqs. 10 and 11), "classes" does so with a sketch and
        a photo of each of ``count`` classes, and "two" makes two pairs of each sample, as the released code does.
    level: what a sketch and a photo have to share: the "category", or the "instance", where a sketch has to find the
        photo that it was drawn from among others of its class (section 4.2).
    ret: where [Ret] is taken from for the triplet loss: as it leaves the "encoder", or the "cross-attention".
    match, no_match: the targets of relation scores.
    triplet, relation: weights of the losses (eq. 12); 0 switches a loss off.
    listwise: weight of cross-entropies over the rows and columns of a step's pairs, with ``pairs`` "classes": of the
        cosines of [Ret] over ``temperature`` if ``triplet`` is not 0, and of relation logits if ``relation`` is not 0.
    margin: of the triplet loss (eq. 10).
    normalised: whether [Ret] is L2-normalised before its distances are taken, as in retrieval. At the rates that few
        steps need, the distances of eq. 10 otherwise shrink to 0.
    """

    count: Count = 15
    pairs: Literal["all", "classes", "two"] = "all"
    level: Literal["category", "instance"] = "category"
    ret: Literal["encoder", "cross-attention"] = "encoder"
    match: Share = 1.0
    no_match: Share = 0.0
    triplet: float = 1.0
    relation: float = 1.0
    listwise: float = 0.0
    temperature: Positive = 0.1
    margin: float = 1.0
    normalised: bool = False

    @property
    def pictures(self) -> int:
        """The number of pictures of a step: the released code adds a second sketch to each sample."""
        return self.count * {"all": 3, "classes": 2, "two": 4}[self.pairs]


@dataclass(frozen=True, kw_only=True)
class ZseOptimiser(Optimiser):
    """AdamW."""

    encoder_rate: float = 1e-4
    head_rate: float = 5e-4
    decay: float = 0.05
    warmup: Count = 50
    last: Share = 0.01
    clip: float = 1.0
    average: float = 0.998


@dataclass(frozen=True, kw_only=True)
class ZseRecipe(Recipe):
    """A training of ZSE-SBIR, whose recipes name no method.

    preset: the configuration that ``network`` changes.
    tuned: what is trained: "all" of the network; "norms", all but the matrices of the encoder's blocks; or "pairs", the
        projection of tokens and what compares pairs, on features of the encoder that are computed once.
    kept: of how many sketches and photos of each class, at most, these features are kept.
    """

    title: ClassVar[str] = "ZSE-SBIR"
    fixed: ClassVar[tuple[str, ...]] = ("mean", "std", "released_preprocessing")

    preset: str
    tuned: Literal["all", "norms", "pairs"] = "all"
    kept: Count = 60
    steps: Count = 250
    samples: Samples = Samples()
    optimiser: ZseOptimiser = ZseOptimiser()

    @property
    def methods(self) -> tuple[Method, ...]:
        trained: dict[Method, float] = {"rn": self.samples.relation, "ret": self.samples.triplet}
        return tuple(method for method, weight in trained.items() if weight)

    @property
    def pictures(self) -> int:
        return self.samples.pictures

    @property
    def fewest_classes(self) -> int:
        return 1 if self.samples.level == "instance" else 2

    @property
    def config(self) -> ZseConfig:
        """The configuration of the network. Raises ModelError for one that cannot be used."""
        return self.configure(ZseConfig, **dataclasses.asdict(preset(self.preset)))

    def check(self) -> None:
        super().check()
        if not self.methods:
            raise ModelError("all losses are switched off")
        if self.samples.listwise and self.samples.pairs != "classes":
            raise ModelError('listwise losses need pairs = "classes"')
        if self.samples.level == "instance" and self.samples.pairs == "classes":
            raise ModelError('pairs = "classes" are of categories')
        if self.config.photo_side and self.tuned == "all":
            raise ModelError('the matrices of a photo side are frozen: set tuned to "norms" or "pairs"')


@dataclass(frozen=True, kw_only=True)
class TwoSidedOptimiser(Optimiser):
    """AdamW."""

    tuning_rate: float = 1.5e-3  # of norms, biases and scales
    head_rate: float = 1e-3  # of the projection of sketches
    pair_rate: float = 3e-4  # of the projection of tokens, cross-attention and relation network
    warmup: Count = 10
    last: Share = 0.001
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TwoSidedRecipe(Recipe):
    """A training of the sketch side of a two-sided network, and of what compares pairs.

    classes: of each step, a sketch of each.
    drawings: the share of these classes that has line drawings alone.
    kept: in (0, 1], how much of the way from the photos' norms, biases and scales to the trained ones is gone in the
        end; less finds more of what the training did not show.
    kept_tokens: the same of the way from the photos' projection of tokens to that of sketches.
    instance_classes, instances: in so many classes of each step, up to so many photos are told apart, each by a sketch
        that was drawn from it; 0 classes for none.
    instance_weight: of their loss by relation logits. The loss by [Ret] counts half as much.
    anew: whether to begin from the photo side although a start is given; only the calibration of that one, and the
        weights of its prior, are taken.
    evaluate_everything: n chooses a prior by every n-th query of the protocol "everything"; 0 makes no prior.
    """

    method: ClassVar[str | None] = "two-sided"
    title: ClassVar[str] = "the default network"
    fixed: ClassVar[tuple[str, ...]] = ("mean", "std", "image_size", "photo_side")
    further: ClassVar[bool] = True

    steps: Count = 140
    classes: Several = 64
    drawings: Share = 0.15
    kept: Positive = 1.0
    kept_tokens: Positive = 1.0
    instance_classes: int = 0
    instances: Several = 16
    instance_weight: Positive = 2.0
    anew: bool = False
    optimiser: TwoSidedOptimiser = TwoSidedOptimiser()
    evaluate_everything: int = 0

    @property
    def methods(self) -> tuple[Method, ...]:
        return ("rn", "ret")

    @property
    def pictures(self) -> int:
        """Sketches alone: photos are encoded once, before the first step."""
        return self.classes

    def config(self, photo_side: str, fields: Mapping[str, Any] | None = None) -> TwoSidedConfig:
        """Makes the configuration on a photo side; fields: where it differs from TWO_SIDED. Raises ModelError."""
        given = dataclasses.asdict(TWO_SIDED) | dict(fields or {}) | {"photo_side": photo_side}
        return self.configure(TwoSidedConfig, **given)

    def check(self) -> None:
        super().check()
        self.config("unknown")


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


@dataclass(frozen=True)
class Anchoring(Table):
    """The treatment of the anchors (sections 3.4 and 3.5)."""

    graph: Annotated[int, Field(ge=0)] = 4  # layers of the graph convolution that adapts the anchors; 0 for none
    randomised: bool = True  # whether each step draws its anchors
    neighbours: Annotated[int, Field(ge=0)] = 10  # the nearest words that a class's word may be swapped for
    swap: Share = 1.0  # the share of words that a step swaps for a neighbour
    # Similarities of anchors are multiplied by it before the softmax, in the targets and in the graph (eq. 2). With the
    # paper's 1, cosines of 100 and more classes become targets that are nearly equal for all.
    sharpness: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class AnchorOptimiser(Optimiser):
    """Adam (section 4.2)."""

    rate: float = 5e-6
    warmup: Count = 150
    last: Share = 0.2
    # Factor of the gradient that enters the ViT. It changes little, because Adam divides gradients by their own size.
    backbone_gradient: float = 0.1


@dataclass(frozen=True, kw_only=True)
class AnchorRecipe(VectorRecipe):
    """A training of Sketch-an-Anchor. Fields of ``network`` are those of ``AnchorConfig``.

    temperature: the same for all losses; the paper does not give it. photos: of each class, 0 for all, photos_by:
    the nearest to their class's visual anchor, the farthest, or any.
    """

    method: ClassVar[str | None] = AnchorNetwork.kind
    title: ClassVar[str] = "Sketch-an-Anchor"
    fixed: ClassVar[tuple[str, ...]] = ("vit",)

    temperature: Positive = 0.07
    photos: Annotated[int, Field(ge=0)] = 0
    photos_by: Literal["nearest", "farthest", "chance"] = "nearest"
    anchoring: Anchoring = Anchoring()
    optimiser: AnchorOptimiser = AnchorOptimiser()

    @property
    def config(self) -> AnchorConfig:
        """The configuration of the network. Raises ModelError for one that cannot be used."""
        return self.configure(AnchorConfig, name=self.method, vit=self.layout)

    def check(self) -> None:
        super().check()
        _ = self.config


@dataclass(frozen=True)
class ClipAtLosses(Table):
    """The losses and their weights; 0 switches one off. The supplementary gives no weights."""

    triplet: float = 1.0  # on cosine distances
    margin: float = 0.2  # the public code's
    classes: float = 1.0  # of the classification by the text vectors of the training's classes
    temperature: Positive = 0.01  # of its cosines, at which CLIP's own training ends
    # Fine-grained networks only: the average divergence of the categories (C). The triplet loss is about 0.1 and the
    # divergence about 1, so that a weight of 0.1 makes them count equally.
    divergence: float = 0.1
    bandwidth: Positive = 0.1  # of the kernels by which the relative distances of a category become a density
    # Fine-grained networks only: the triplet loss on shuffled patches. A grid of 2 has 24 orders, and halves of things
    # can still be seen; in finer grids parts are harder to recognise.
    patches: float = 1.0
    patch_margin: float = 0.2
    patch_grid: Several = 2


@dataclass(frozen=True, kw_only=True)
class ClipAtOptimiser(Optimiser):
    """Adam; the public code has constant rates, of 1e-6 and 1e-4."""

    encoder_rate: float = 1e-6  # of the LayerNorms, the only part of the encoder that is learned
    prompt_rate: float = 1e-4
    text_rate: float = 1e-3  # of the projection to the text vectors, which only a ViT of timm needs
    warmup: Count = 20


@dataclass(frozen=True, kw_only=True)
class ClipAtRecipe(VectorRecipe):
    """A training of CLIP-AT. Fields of ``network`` are those of ``ClipAtConfig``.

    The supplementary gives no number of prompts, epochs or weights: these values are chosen here.
    level: "category", or "fine-grained" pairs with one encoder (A), from so many ``categories`` of a step.
    """

    method: ClassVar[str | None] = ClipAtNetwork.kind
    title: ClassVar[str] = "CLIP-AT"
    fixed: ClassVar[tuple[str, ...]] = ("vit", "shared_prompts", "shared_norms")

    level: Literal["category", "fine-grained"] = "category"
    categories: Several = 4
    losses: ClipAtLosses = ClipAtLosses()
    optimiser: ClipAtOptimiser = ClipAtOptimiser()

    @property
    def fine_grained(self) -> bool:
        """True if each sketch has to find the very photo that it was drawn from."""
        return self.level == "fine-grained"

    def config(self, vit: PretrainedVit) -> ClipAtConfig:
        """Makes the configuration of the network that starts from this ViT. Raises ModelError if it cannot be used."""
        shared = {"shared_prompts": self.fine_grained, "shared_norms": self.fine_grained}
        given = {"name": self.method, "image_size": vit.image_size, "mean": vit.mean, "std": vit.std}
        return self.configure(ClipAtConfig, vit=vit.layout, **shared, **given)

    def check(self) -> None:
        super().check()
        if not self.losses.triplet and not self.losses.classes:
            raise ModelError("all losses are switched off")
        if self.fine_grained and (self.batch % self.categories or self.batch < 2 * self.categories):
            raise ModelError("a fine-grained batch needs 2 categories or more, with 2 pairs or more of each")


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
        content = merge(_content(path), changes or {})
        method = content.pop("method", None)
        if method not in _KINDS:
            raise ValueError(f"there is no method {method!r}")
        recipe = _KINDS[method].validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise _unusable(path, why, changes) from error
    except RecursionError as error:
        raise _unusable(path, "it is its own base, or nested too deeply") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(path, str(error), changes) from error
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


# How often a training within a budget is saved, and measured on the validation classes.
MOMENTS = 5


def read_within_budget(path: Path, changes: Mapping[str, Any], budget: int, rate: float) -> AnyRecipe:
    """Reads a recipe for a budget of pictures, its rates times ``rate``; a budget of 0 learns nothing."""
    recipe = read_recipe(path, changes)
    steps = max(1, budget // recipe.pictures)
    often, factor = max(1, steps // MOMENTS), rate if budget else 0.0
    values = dataclasses.asdict(recipe.optimiser)
    optimiser = {name: value * factor for name, value in values.items() if name.endswith("rate")}
    optimiser["warmup"] = min(recipe.optimiser.warmup, often)
    given = {"steps": steps, "evaluate_every": often, "save_every": often, "optimiser": optimiser}
    return read_recipe(path, merge(changes, given))


def recipe_file(path: Path) -> Path:
    """Finds the file that a path or a name means. Raises ModelError, with the known names, if there is none."""
    file = path if path.suffix else RECIPES / f"{path}.toml"
    if not file.is_file():
        files = (found.relative_to(RECIPES).with_suffix("").as_posix() for found in RECIPES.rglob("*.toml"))
        known = sorted(name for name in files if not name.startswith("tables/"))
        raise ModelError(f"there is no recipe {path}; name a file that ends in .toml, or one of {', '.join(known)}")
    return file


def _content(path: Path) -> dict[str, Any]:
    """Reads the keys of a recipe, over the keys of its base."""
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    base = content.pop("base", None)
    if base is None:
        return content
    return merge(_content(path.parent / base if Path(base).suffix else recipe_file(Path(base))), content)


def merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Puts changes over the keys, table by table."""
    joined = {name: content.get(name, {}) | value for name, value in changes.items() if isinstance(value, dict)}
    return {**content, **changes, **joined}


def _unusable(path: Path, why: str, changes: object = None) -> ModelError:
    changed = ", as it was changed," if changes else ""
    known = "model/papers/recipe.py says which keys there are"
    return ModelError(f"{path}{changed} is not a usable training recipe: {why}; {known}")

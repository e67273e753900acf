"""Recipes of trainings, of all methods: one frozen object each, read from a TOML file, and cut to a budget."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from model.errors import ModelError
from model.network import (
    AnchorConfig,
    AnchorNetwork,
    ClipAtConfig,
    ClipAtNetwork,
    Method,
    ModelConfig,
    PretrainedVit,
    VitSizes,
    multiplies_bf16,
    preset,
)
from model.training import Pace

# Recipes of the published checkpoints and tables lie here.
RECIPES = Path(__file__).parent / "recipes"
# A recipe of CLIP-AT has this as its backbone where ``--backbone`` names a CLIP.
CLIP = "clip"

Count = Annotated[int, Field(ge=1)]
Several = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Config = TypeVar("Config")


class Table:
    """A table of a recipe's file, which refuses keys that it does not know."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Optimiser(Table):
    """An optimiser of any method.

    Attributes:
        warmup: steps in which the learning rates rise linearly.
        clip: the largest norm of the gradients.
        average: the share of the running average of the weights that each step keeps; 0 for no average.
    """

    warmup: Count
    clip: float = float("inf")
    average: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe(Table):
    """A training of any method.

    Attributes:
        network: fields of the network's configuration that differ. With ``sizes``, the fields of ``VitSizes``, a ViT
            differs from timm's of its name.
        split: parts of the data's split.json that are trained on; "thin" means the classes that it leaves out. The
            calibration is chosen on "val"; a training that uses "val" keeps the calibration of its start. Class folders
            (--data) have these two parts only: without "val" every fifth class is left for it. Of data/more,
            "more" are classes with sketches alone, "imagenet1k" photos alone, and "ship" both; only with "ship" may
            "unseen" be trained on, because no figure of such a network is zero-shot.
        hold_out: leaves out of training the photos that galleries of the generalised protocol show.
        data_set: the one set of sketches that is trained on, with the photos that go with it; None for all sets.
        seed: it decides all random choices of a step, together with the step's number.
        save_every, evaluate_every: steps between saved states, and between evaluations on the validation classes.
        evaluate_share: n uses every n-th validation query and photo for those evaluations.
        choose_share: n uses every n-th of them to choose the calibration at the end.
        bf16: whether to compute in bfloat16 what autocast allows, on a CPU that multiplies it natively: on others it
            takes many times longer than float32.
    """

    # The method's name, how messages call it, a recipe of it, and its learning rates, of which the first is that of
    # what is learned of the pretrained ViT.
    method: ClassVar[str | None] = None
    title: ClassVar[str]
    example: ClassVar[str]
    rates: ClassVar[tuple[str, ...]]

    network: dict[str, Any] = field(default_factory=dict)
    split: tuple[str, ...] = ("train",)
    hold_out: bool = False
    data_set: str | None = None
    optimiser: Optimiser
    seed: int = 0
    save_every: Count = 50
    evaluate_every: Count = 250
    evaluate_share: Count = 3
    choose_share: Count = 1
    bf16: bool = True

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        raise NotImplementedError

    @property
    def pictures(self) -> int:
        """How many pictures the network sees in the whole training, repeats and shuffled ones counted: its budget."""
        raise NotImplementedError

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods of scoring that the losses train."""
        return ("ret",)

    @property
    def further_sketches(self) -> bool:
        """Whether it uses sketches of classes without photos."""
        return False

    @property
    def line_drawings(self) -> bool:
        """Whether it uses line drawings of photos."""
        return False

    @property
    def further_photos(self) -> bool:
        """Whether it uses photos of classes without sketches."""
        return self.line_drawings

    @property
    def dtype(self) -> torch.dtype:
        """The precision to compute in on this machine."""
        return torch.bfloat16 if self.bf16 and multiplies_bf16() else torch.float32

    @property
    def pace(self) -> Pace:
        """The part of the recipe that the training loop reads."""
        chosen = self.optimiser
        return Pace(self.steps, self.seed, chosen.clip, chosen.average, self.save_every, self.evaluate_every)

    @property
    def sizes(self) -> VitSizes | None:
        """The sizes of a ViT that differs from timm's. Raises ModelError for unknown or unusable ones."""
        try:
            return VitSizes(**self.network["sizes"]) if "sizes" in self.network else None
        except TypeError as error:
            raise ModelError(f"the recipe's table [network.sizes] cannot be used: {error}") from error

    def check(self) -> None:
        """Raises ModelError for values that do not fit together."""
        if "unseen" in self.split and "ship" not in self.split:
            raise ModelError('a recipe may train on "unseen" only together with "ship"')

    def refuse(self, *names: str) -> None:
        """Raises ModelError where the table [network] has one of these names."""
        if fixed := sorted({*names} & set(self.network)):
            raise ModelError(
                f"[network] may not set {', '.join(fixed)}, which the rest of the recipe, or what comes after the "
                "training, decides"
            )

    def configured(self, make: Callable[..., Config], **given: Any) -> Config:
        """The configuration that ``make`` gives of these values and the table [network], but for ``sizes``.

        Raises ModelError for unknown fields and unusable values.
        """
        changes = {name: tuple(value) if isinstance(value, list) else value for name, value in self.network.items()}
        changes.pop("sizes", None)
        try:
            return make(**{**given, **changes})
        except TypeError as error:
            raise ModelError(f"the recipe's [network] table has an unknown field: {error}") from error


@dataclass(frozen=True)
class Phase(Table):
    """A part of a training at one input size. ``encoder`` False trains cross-attention and relation network only."""

    image_size: Count
    steps: Count
    encoder: bool = True


@dataclass(frozen=True)
class Batch(Table):
    """The pictures of one step.

    Attributes:
        classes: distinct classes.
        near: share of the classes that are chosen because they look like the first one; the rest are random.
        photos: of each class. If there are several, sketches drawn from each photo have to find that photo, so that
            instances are learned.
        sketches: of each photo; the first of them goes through the relation network.
        drawn: further photos that are turned into line drawings by a filter, anew in each step.
        lines: line drawings from the data, each with its photo. Any of them also brings in the photos of classes that
            have no sketches.
        further: classes that have no photos, with two sketches each.
    """

    classes: Count = 24
    near: float = 0.5
    photos: Count = 1
    sketches: Count = 2
    drawn: int = 16
    lines: int = 0
    further: int = 0


@dataclass(frozen=True)
class Weights(Table):
    """Weights of the losses; 0 switches one off. See ``model.papers.zse.objectives``."""

    bank: float = 1.0
    contrast: float = 0.0
    labels: float = 1.0
    teacher: float = 1.0
    relation: float = 1.0
    mates: float = 0.0
    instances: float = 0.0


@dataclass(frozen=True)
class Quadruplets(Table):
    """The paper's samples and losses, instead of ``Batch`` and ``Weights``; see ``QuadrupletObjective``.

    Attributes:
        samples: in one step, of four pictures each.
        triplet, relation: weights of the two losses (eq. 12); 0 switches one off.
        margin: of the triplet loss.
        spread: weight of the regulariser MCC (IJCAI 2024), which holds the mean cosine of the sketches of a batch, and
            that of its photos, at ``cosine``; 0 switches it off. Without it the triplet loss may pull all sketches
            together, and away from the photos.
        cosine: see ``spread``.
    """

    samples: int = 15
    triplet: float = 2.0
    relation: float = 4.0
    margin: float = 1.0
    spread: float = 0.0
    cosine: float = 0.2


@dataclass(frozen=True, kw_only=True)
class ZseOptimiser(Optimiser):
    """AdamW with a linear warm-up, a constant stretch, a cosine decay to a hundredth, and an average over steps.

    ``stable`` is the share of all steps before the decay begins; 1 for none. The last ``late_blocks`` blocks of a ViT,
    where the pretrained network knows what things are, learn at ``late_rate`` times the encoder's rate.
    """

    encoder_rate: float = 1e-4
    head_rate: float = 5e-4
    decay: float = 0.05
    warmup: Count = 50
    stable: Share = 0.0
    clip: float = 1.0
    average: float = 0.998
    late_blocks: int = 0
    late_rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ZseRecipe(Recipe):
    """A training of ZSE-SBIR or of the default network. Recipes of this kind do not name their method.

    Attributes:
        preset: a configuration, whose fields ``network`` changes.
        phases: in order; one schedule of the learning rate spans all of them.
        quadruplets: the paper's samples and losses; None for those of ``batch`` and ``weights``.
        temperature: of the bank loss.
        evaluate_everything: n adds figures of the protocol "everything" to the evaluations, by every n-th of its
            queries; 0 leaves them out.
    """

    title: ClassVar[str] = "ZSE-SBIR"
    example: ClassVar[str] = "default"
    rates: ClassVar[tuple[str, ...]] = ("encoder_rate", "head_rate")

    preset: str
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    quadruplets: Quadruplets | None = None
    batch: Batch = Batch()
    weights: Weights = Weights()
    optimiser: ZseOptimiser = ZseOptimiser()
    temperature: float = 0.07
    evaluate_everything: int = 0

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def pictures(self) -> int:
        if self.quadruplets is not None:
            return self.steps * 4 * self.quadruplets.samples
        batch = self.batch
        photos = batch.classes * batch.photos
        return self.steps * (photos * (1 + batch.sketches) + batch.drawn + batch.lines + 2 * batch.further)

    @property
    def further_sketches(self) -> bool:
        return self.batch.further > 0

    @property
    def line_drawings(self) -> bool:
        return self.batch.lines > 0

    @property
    def methods(self) -> tuple[Method, ...]:
        if self.quadruplets is not None:
            relation, ret = self.quadruplets.relation, self.quadruplets.triplet
        else:
            weights = dataclasses.asdict(self.weights)
            relation, ret = weights.pop("relation"), sum(weights.values())
        trained: dict[Method, float] = {"rn": relation, "ret": ret}
        return tuple(method for method, weight in trained.items() if weight)

    def config(self, image_size: int) -> ModelConfig:
        """The configuration of the network at one input size. Raises ModelError for one that cannot be used."""
        return self.configured(partial(dataclasses.replace, preset(self.preset)), image_size=image_size)

    def phase_at(self, step: int) -> Phase:
        """The phase that step (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]

    def check(self) -> None:
        super().check()
        if not self.methods:
            raise ModelError("all losses are switched off")
        self.refuse("mean", "std", "released_preprocessing", "image_size")
        for phase in self.phases:
            self.config(phase.image_size)


@dataclass(frozen=True, kw_only=True)
class TwoSidedOptimiser(Optimiser):
    """AdamW with a linear warm-up and a cosine decay, in each of both phases.

    Attributes:
        tuning_rate: of norms, biases and scales. head_rate: of the projection of sketches.
        point_rate: of the points of classes without photos.
        pair_rate: of the projection of tokens, cross-attention and relation network.
    """

    tuning_rate: float = 1.5e-3
    head_rate: float = 1e-3
    point_rate: float = 1e-2
    pair_rate: float = 1e-3
    warmup: Count = 10
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TwoSidedRecipe(Recipe):
    """A training of the sketch side of a two-sided network, and then of what compares pairs.

    Attributes:
        preset: a configuration, whose fields ``network`` changes.
        sketch_steps, pair_steps: of both phases, in this order.
        classes, pair_classes: of each step, a sketch of each.
        contrast: weight of the contrast of sketches with photos of the batch, beside that with all classes.
        temperature: by which the cosines of the first phase are divided at the beginning; it is learned.
        evaluate_everything: as for ``ZseRecipe``.
    """

    method: ClassVar[str | None] = "two-sided"
    title: ClassVar[str] = "the default network"
    example: ClassVar[str] = "two-sided"
    rates: ClassVar[tuple[str, ...]] = ("tuning_rate", "head_rate", "pair_rate")

    preset: str = "two-sided-s14"
    sketch_steps: Count = 140
    pair_steps: Count = 200
    classes: Several = 64
    pair_classes: Several = 16
    contrast: float = 0.5
    temperature: Positive = 0.07
    optimiser: TwoSidedOptimiser = TwoSidedOptimiser()
    evaluate_everything: int = 0

    @property
    def steps(self) -> int:
        """The number of steps of both phases."""
        return self.sketch_steps + self.pair_steps

    @property
    def pictures(self) -> int:
        """How many sketches the network sees in the whole training; photos are encoded once."""
        return self.sketch_steps * self.classes + self.pair_steps * self.pair_classes

    @property
    def further_sketches(self) -> bool:
        """Whether it uses sketches of classes without photos: always."""
        return True

    @property
    def further_photos(self) -> bool:
        """Whether it uses photos of classes without sketches: always, for the words of its vocabulary."""
        return True

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that the losses train: both."""
        return ("rn", "ret")

    def config(self, photo_side: str) -> ModelConfig:
        """The configuration of a network on the photo side with this SHA-256. Raises ModelError for an unusable one."""
        return self.configured(partial(dataclasses.replace, preset(self.preset)), photo_side=photo_side)

    def check(self) -> None:
        """Raises ModelError for values that do not fit together."""
        super().check()
        self.refuse("mean", "std", "image_size", "photo_side", "prototypes", "words")
        self.config("unknown")


@dataclass(frozen=True, kw_only=True)
class VectorRecipe(Recipe):
    """A training of any network that has one vector an image.

    Attributes:
        backbone: timm's name of the ViT's architecture; "clip" where ``--backbone`` names a CLIP of open_clip, which
            CLIP-AT takes.
        batch: sketches of a step, each with a photo.
        augment: whether pictures are varied; the papers do not speak of it.
        names: for classes that the word vectors do not have, the words whose vectors are averaged; CLIP reads any name.
    """

    backbone: str
    steps: Count = 1500
    batch: Several = 16
    augment: bool = False
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Anchoring(Table):
    """The treatment of the anchors (sections 3.4 and 3.5).

    Attributes:
        graph: layers of the graph convolution that adapts the anchors; 0 leaves them as they are.
        randomised: whether each step draws its anchors.
        neighbours: the nearest words that a class's word may be swapped for, and ``swap`` the share of words that are.
            The paper says 10, and of the share nothing.
        sharpness: what similarities of anchors are multiplied by before the softmax, in the targets and in the graph.
            The equations have none, which is 1. Cosines of 100 and more classes then become targets that are nearly
            equal for all.
    """

    graph: Annotated[int, Field(ge=0)] = 4
    randomised: bool = True
    neighbours: Annotated[int, Field(ge=0)] = 10
    swap: Share = 0.5
    sharpness: float = 10.0


@dataclass(frozen=True, kw_only=True)
class AnchorOptimiser(Optimiser):
    """Adam with a linear warm-up and a cosine decay (section 4.2).

    Attributes:
        rate: after the warm-up. last_rate: at the end; equal to ``rate`` for a constant rate.
        backbone_gradient: factor of the gradient that enters the ViT. Adam divides gradients by their own size, so
            that it changes little.
        backbone_rate: factor of the learning rate of the ViT.
        epsilon: of Adam; 1e-7 is that of TensorFlow, which the paper used.
    """

    rate: float = 5e-6
    last_rate: float = 1e-6
    warmup: Count = 150
    backbone_gradient: float = 0.1
    backbone_rate: float = 1.0
    epsilon: float = 1e-7


@dataclass(frozen=True)
class ChosenPhotos(Table):
    """The few photos of each class that a training sees (section 4.5): those nearest to the class's visual anchor.

    The anchors stay those of all photos.

    Attributes:
        count: of each class; a class that has fewer gives all.
        farthest: take the farthest ones instead.
    """

    count: Count
    farthest: bool = False


@dataclass(frozen=True, kw_only=True)
class AnchorRecipe(VectorRecipe):
    """A training of Sketch-an-Anchor. Fields of ``network`` are those of ``AnchorConfig``.

    Attributes:
        temperature: of all losses; the paper does not name it.
        photos: the few of each class that are trained on; None for all.
    """

    method: ClassVar[str | None] = AnchorNetwork.kind
    title: ClassVar[str] = "Sketch-an-Anchor"
    example: ClassVar[str] = "sketch-an-anchor/whole"
    rates: ClassVar[tuple[str, ...]] = ("rate", "last_rate")

    temperature: Positive = 0.07
    anchoring: Anchoring = Anchoring()
    optimiser: AnchorOptimiser = AnchorOptimiser()
    photos: ChosenPhotos | None = None

    @property
    def pictures(self) -> int:
        return self.steps * 2 * self.batch

    @property
    def config(self) -> AnchorConfig:
        """The configuration of the network. Raises ModelError for one that cannot be used."""
        changed = self.configured(AnchorConfig, name=self.method, backbone=self.backbone, sizes=self.sizes)
        # A checkpoint with these values would be refused for the same.
        return AnchorConfig.from_json(changed.to_json())

    def check(self) -> None:
        super().check()
        self.refuse("prototypes", "words")
        _ = self.config


@dataclass(frozen=True)
class ClipAtLosses(Table):
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
    temperature: Positive = 0.01
    divergence: float = 0.1
    distribution: Literal["density", "softmax"] = "density"
    bandwidth: Positive = 0.1
    patches: float = 1.0
    patch_margin: float = 0.2
    patch_grid: Several = 2


@dataclass(frozen=True, kw_only=True)
class ClipAtOptimiser(Optimiser):
    """Adam with a linear warm-up and a cosine decay.

    Attributes:
        encoder_rate: of the LayerNorms, all that is learned of the encoder; 1e-6 is that of the public code.
        prompt_rate: of the prompts; 1e-4 is that of the public code.
        text_rate: of the projection to the text vectors, which only a ViT of timm needs.
        last: the share of the rates that is left at the end; 1 for constant rates, as the public code has them.
    """

    encoder_rate: float = 1e-6
    prompt_rate: float = 1e-4
    text_rate: float = 1e-3
    warmup: Count = 20
    last: Share = 1.0


@dataclass(frozen=True, kw_only=True)
class ClipAtRecipe(VectorRecipe):
    """A training of CLIP-AT. Fields of ``network`` are those of ``ClipAtConfig``.

    The supplementary names no number of prompts, epochs or weights: such fields have values that are chosen here. Of
    ``prompts`` the public code has 3.

    Attributes:
        level: what is learned: the "category" of a thing, with an encoder for sketches and one for photos, or
            "fine-grained" pairs, with one encoder for both (A).
        categories: how many categories the pairs of a fine-grained step are of, in equal numbers. Each sketch has to
            find its photo among those of its category in the batch.
    """

    method: ClassVar[str | None] = ClipAtNetwork.kind
    title: ClassVar[str] = "CLIP-AT"
    example: ClassVar[str] = "clip-at/category"
    rates: ClassVar[tuple[str, ...]] = ("encoder_rate", "prompt_rate", "text_rate")

    level: Literal["category", "fine-grained"] = "category"
    categories: int = 4
    losses: ClipAtLosses = ClipAtLosses()
    optimiser: ClipAtOptimiser = ClipAtOptimiser()

    @property
    def pictures(self) -> int:
        shuffled = 3 if self.fine_grained and self.losses.patches else 0
        return self.steps * self.batch * (2 + shuffled)

    @property
    def fine_grained(self) -> bool:
        """Whether each sketch has to find the very photo that it was drawn from."""
        return self.level == "fine-grained"

    def config(self, vit: PretrainedVit) -> ClipAtConfig:
        """The configuration of the network that starts from this ViT. Raises ModelError for one that cannot be used."""
        shared = {"shared_prompts": self.fine_grained, "shared_norms": self.fine_grained}
        given = {"name": self.method, "image_size": vit.image_size, "mean": vit.mean, "std": vit.std}
        changed = self.configured(ClipAtConfig, vit=vit.layout, **shared, **given)
        # A checkpoint with these values would be refused for the same.
        return ClipAtConfig.from_json(changed.to_json())

    def check(self) -> None:
        super().check()
        if not self.losses.triplet and not self.losses.classes:
            raise ModelError("all losses are switched off")
        if self.fine_grained:
            if self.categories < 2 or self.batch % self.categories or self.batch < 2 * self.categories:
                raise ModelError("a fine-grained batch needs 2 categories or more, with 2 pairs or more of each")
            if self.augment:
                raise ModelError("a fine-grained recipe cannot augment, since pairs would be varied apart")
        self.refuse("prototypes", "words", "vit", "shared_prompts", "shared_norms")


_KINDS: dict[str | None, type[Recipe]] = {
    kind.method: kind for kind in (ZseRecipe, TwoSidedRecipe, AnchorRecipe, ClipAtRecipe)
}
Read = TypeVar("Read", bound=Recipe)


def read_recipe(path: Path, kind: type[Read]) -> Read:
    """Reads a recipe from TOML.

    A key ``base`` names another recipe that this one changes: a file beside it, or a name. A name is without an ending,
    such as "default" or "ablations/full", and means a file in RECIPES. Tables are merged key by key. A key ``method``
    names the method; recipes of ZSE-SBIR have none.

    Args:
        path: a file or a name.
        kind: the kind of recipe that is needed; ``Recipe`` for any.

    Raises:
        ModelError: the file cannot be used, with its name and what is wrong in it.
    """
    path = recipe_file(path)
    try:
        content = _content(path)
        method = content.pop("method", None)
        if method not in _KINDS:
            raise ValueError(f"there is no method {method!r}")
        recipe = TypeAdapter(_KINDS[method]).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _unusable(path, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    except RecursionError as error:
        raise _unusable(path, "it is its own base") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(path, str(error)) from error
    if not isinstance(recipe, kind):
        raise ModelError(f"{path} is no recipe of {kind.title}; one is {kind.example}")
    try:
        recipe.check()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return recipe


def recipe_file(path: Path) -> Path:
    """The file that a path or a name means. Raises ModelError, with the names there are, where there is none."""
    file = path if path.suffix else RECIPES / f"{path}.toml"
    if not file.is_file():
        names = ", ".join(sorted(found.stem for found in RECIPES.glob("*.toml")))
        raise ModelError(f"there is no recipe {path}; name a file that ends in .toml, or one of {names}")
    return file


def keep_text(path: Path, text: str, held: str, option: str = "--run") -> None:
    """Writes a recipe, or settings, to the folder of the trainings by it.

    Raises ModelError where another one is there, since the folder holds trainings by that; ``held`` says what they are,
    ``option`` names another folder.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise ModelError(f"{path.parent} holds {held}; name another folder with {option}")


def _content(path: Path) -> dict[str, Any]:
    """The keys of a recipe over those of its base."""
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    base = content.pop("base", None)
    if base is None:
        return content
    merged = _content(path.parent / base if Path(base).suffix else recipe_file(Path(base)))
    for name, value in content.items():
        merged[name] = merged.get(name, {}) | value if isinstance(value, dict) else value
    return merged


def _unusable(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not a usable training recipe: {why}; model/papers/recipe.py says which keys there are"
    )


# A training at a budget is measured so often, evenly spread, and on every n-th validation query and photo.
VALIDATIONS, VALIDATION_SHARE = 5, 4
# The warm-up takes this share of the steps at most.
_MOST_WARMUP = 0.2
# A training at a budget saves its state so often.
_SAVES = 8


class Budget(NamedTuple):
    """The cost of a training: pictures, repeats counted, and their side in pixels. It makes whole steps alone."""

    pictures: int
    image_size: int


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


def at_budget(path: Path, budget: Budget, factor: float = 1.0) -> BudgetedRecipe:
    """Cuts a recipe of any kind to a budget, with its learning rates multiplied by ``factor``.

    path: a file, or the name of one without an ending. Raises ModelError for one that cannot be used, and for a budget
    below one step.
    """
    first = read_recipe(path, Recipe)
    each = first.pictures // first.steps
    steps = budget.pictures // each
    if not steps:
        raise ModelError(f"a step of {path} sees {each} pictures, so a budget of {budget.pictures} is too small")
    if isinstance(first, ZseRecipe):
        length, network = f"phases = [{{ image_size = {budget.image_size}, steps = {steps} }}]", ""
    else:
        length, network = f"steps = {steps}", f"[network]\nimage_size = {budget.image_size}\n"
    # Six digits leave out rounding errors.
    rates = {name: float(f"{getattr(first.optimiser, name) * factor:.6g}") for name in first.rates}
    lines = [
        # A quoted JSON string is a TOML string, too.
        f"base = {json.dumps(str(path), ensure_ascii=False)}",
        length,
        f"save_every = {-(-steps // _SAVES)}",
        f"evaluate_every = {-(-steps // VALIDATIONS)}",
        f"evaluate_share = {VALIDATION_SHARE}",
        f"{network}[optimiser]",
        *(f"{name} = {value!r}" for name, value in rates.items()),
        f"warmup = {max(1, min(first.optimiser.warmup, int(_MOST_WARMUP * steps)))}",
    ]
    return BudgetedRecipe("\n".join(lines) + "\n", rates[first.rates[0]], each * steps)

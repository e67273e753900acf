"""The recipe of a training: one frozen object, read from a TOML file."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError

from model.errors import ModelError
from model.network import Method, ModelConfig, multiplies_bf16, preset


class AnyRecipe(Protocol):
    """A recipe of any method: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Read = TypeVar("Read", bound=AnyRecipe)
# Recipes of the published checkpoints and tables.
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Phase:
    """A part of a training at one input size. ``encoder`` False trains cross-attention and relation network only."""

    image_size: int
    steps: int
    encoder: bool = True


@dataclass(frozen=True)
class Batch:
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

    classes: int = 24
    near: float = 0.5
    photos: int = 1
    sketches: int = 2
    drawn: int = 16
    lines: int = 0
    further: int = 0


@dataclass(frozen=True)
class Weights:
    """Weights of the losses; 0 switches one off. See ``model.papers.zse.losses``."""

    bank: float = 1.0
    contrast: float = 0.0
    labels: float = 1.0
    teacher: float = 1.0
    relation: float = 1.0
    mates: float = 0.0
    instances: float = 0.0


@dataclass(frozen=True)
class Quadruplets:
    """The paper's samples and losses, instead of ``Batch`` and ``Weights``; see ``objectives.quadruplets``.

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


@dataclass(frozen=True)
class Optimiser:
    """AdamW with a linear warm-up, a constant stretch, a cosine decay to a hundredth, and an average over steps.

    ``stable`` is the share of all steps before the decay begins; 1 for none. The last ``late_blocks`` blocks of a ViT,
    where the pretrained network knows what things are, learn at ``late_rate`` times the encoder's rate.
    """

    encoder_rate: float = 1e-4
    head_rate: float = 5e-4
    decay: float = 0.05
    warmup: int = 50
    stable: float = 0.0
    clip: float = 1.0
    average: float = 0.998
    late_blocks: int = 0
    late_rate: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """A whole training.

    Attributes:
        preset, network: a preset, and the fields of its configuration that differ.
        split: parts of the data's split.json that are trained on; "thin" means the classes that it leaves out. The
            calibration is chosen on "val"; a training that uses "val" keeps the calibration of its start. Class folders
            (--data) have these two parts only: without "val" every fifth class is left for it. Of data/more,
            "more" are classes with sketches alone, "imagenet1k" photos alone, and "ship" both; only with "ship" may
            "unseen" be trained on, because no figure of such a network is zero-shot.
        hold_out: leaves out of training the photos that galleries of the generalised protocol show.
        data_set: the one set of sketches that is trained on, with the photos that go with it; None for all sets.
        quadruplets: the paper's samples and losses; None for those of ``batch`` and ``weights``.
        phases: in order; one schedule of the learning rate spans all of them.
        temperature: of the bank loss.
        seed: together with the step's number it decides all random choices of a step.
        save_every, evaluate_every: steps between saved states, and between evaluations on the validation classes.
        evaluate_share: n uses every n-th validation query and photo for those evaluations.
        evaluate_everything: n adds figures of the protocol "everything" to those evaluations, by every n-th of its
            queries; 0 leaves them out.
        choose_share: n uses every n-th of them to choose the calibration at the end.
        bf16: whether to compute in bfloat16 what autocast allows, on a CPU that multiplies it natively: on others it
            takes many times longer than float32.
    """

    preset: str
    phases: tuple[Phase, ...]
    network: dict[str, Any] = field(default_factory=dict)
    split: tuple[str, ...] = ("train",)
    hold_out: bool = False
    data_set: str | None = None
    quadruplets: Quadruplets | None = None
    batch: Batch = Batch()
    weights: Weights = Weights()
    optimiser: Optimiser = Optimiser()
    temperature: float = 0.07
    seed: int = 0
    save_every: int = 50
    evaluate_every: int = 250
    evaluate_share: int = 3
    evaluate_everything: int = 0
    choose_share: int = 1
    bf16: bool = True

    @property
    def steps(self) -> int:
        """The number of steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def pictures(self) -> int:
        """How many pictures the encoder sees in the whole training: its budget."""
        if self.quadruplets is not None:
            return self.steps * 4 * self.quadruplets.samples
        photos = self.batch.classes * self.batch.photos
        return self.steps * (
            photos * (1 + self.batch.sketches) + self.batch.drawn + self.batch.lines + 2 * self.batch.further
        )

    @property
    def clip(self) -> float:
        """The largest norm of the gradients."""
        return self.optimiser.clip

    @property
    def average(self) -> float:
        """How much of the running average of the weights is kept at each step."""
        return self.optimiser.average

    @property
    def further_sketches(self) -> bool:
        """Whether it uses sketches of classes without photos."""
        return self.batch.further > 0

    @property
    def line_drawings(self) -> bool:
        """Whether it uses line drawings of photos."""
        return self.batch.lines > 0

    @property
    def dtype(self) -> torch.dtype:
        """The precision to compute in on this machine."""
        return torch.bfloat16 if self.bf16 and multiplies_bf16() else torch.float32

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that the losses train: "rn", "ret" or both."""
        if self.quadruplets is not None:
            relation, ret = self.quadruplets.relation, self.quadruplets.triplet
        else:
            weights = self.weights
            relation = weights.relation
            ret = weights.bank + weights.contrast + weights.labels + weights.teacher + weights.mates + weights.instances
        trained: dict[Method, float] = {"rn": relation, "ret": ret}
        return tuple(method for method, weight in trained.items() if weight)

    def config(self, image_size: int) -> ModelConfig:
        """The configuration of the network at one input size. Raises ModelError for unknown fields."""
        changes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in self.network.items()}
        try:
            return dataclasses.replace(preset(self.preset), **{**changes, "image_size": image_size})
        except TypeError as error:
            raise ModelError(f"the recipe's [network] table has an unknown field: {error}") from error

    def phase_at(self, step: int) -> Phase:
        """The phase that step (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe from TOML. A key ``base`` names another recipe that this one changes: a file beside it, or a name.

    A name is without an ending, such as "default" or "ablations/full", and means a file in RECIPES.

    Raises ModelError naming the file and what is wrong in it.
    """
    path = recipe_file(path)
    recipe = recipe_of(path, Recipe, _fields)
    if not recipe.phases or ("unseen" in recipe.split and "ship" not in recipe.split):
        raise ModelError(f'{path}: a recipe needs [[phases]], and may train on "unseen" only together with "ship"')
    if recipe.optimiser.warmup < 1 or not 0 <= recipe.optimiser.stable <= 1:
        raise ModelError(f"{path}: warmup must be at least 1, and stable lie in [0, 1]")
    if below := [name for name, value in _counts(recipe).items() if value < 1]:
        raise ModelError(f"{path}: {', '.join(below)} must be at least 1")
    if not recipe.methods:
        raise ModelError(f"{path}: all losses are switched off")
    fixed = {"mean", "std", "released_preprocessing", "image_size"} & set(recipe.network)
    if fixed:
        raise ModelError(f"{path}: [network] may not set {', '.join(sorted(fixed))}; training fixes how pictures look")
    for phase in recipe.phases:
        recipe.config(phase.image_size)
    return recipe


def _fields(content: dict[str, Any]) -> dict[str, Any]:
    tables = {"batch": Batch, "weights": Weights, "quadruplets": Quadruplets, "optimiser": Optimiser}
    fields: dict[str, Any] = {
        name: tables[name](**value) if name in tables else tuple(value) if name == "split" else value
        for name, value in content.items()
    }
    return fields | {"phases": tuple(Phase(**phase) for phase in content.get("phases", ()))}


def recipe_of(path: Path, kind: type[Read], fields: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Read:
    """The recipe in a file, all its types checked, whatever the method.

    Args:
        kind: the dataclass of such recipes.
        fields: makes the values of its fields of the file's content, over that of its base.

    Raises ModelError naming the file and what is wrong in it.
    """
    try:
        recipe = kind(**fields(recipe_content(path)))
        # Only checked: the recipe itself stays as it was written, because saved trainings are known by it.
        TypeAdapter(kind).validate_json(json.dumps(dataclasses.asdict(recipe)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _unusable(path, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    except RecursionError as error:
        raise _unusable(path, "it is its own base") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(path, str(error)) from error
    return recipe


def check_at_least(path: Path, counts: Mapping[str, tuple[int, int]]) -> None:
    """Raises ModelError for numbers, by their names, that are below the least that each must be."""
    if below := [f"{name} must be at least {low}" for name, (value, low) in counts.items() if value < low]:
        raise ModelError(f"{path}: {', '.join(below)}")


def recipe_file(path: Path) -> Path:
    """The file that a path or a name means. Raises ModelError, with the names there are, where there is none."""
    file = path if path.suffix else RECIPES / f"{path}.toml"
    if not file.is_file():
        names = ", ".join(sorted(found.stem for found in RECIPES.glob("*.toml")))
        raise ModelError(f"there is no recipe {path}; name a file that ends in .toml, or one of {names}")
    return file


def keep_recipe(path: Path, text: str, held: str) -> None:
    """Writes a recipe to the folder of the trainings by it.

    Raises ModelError where another one is there, since the folder holds trainings by that; ``held`` says what they are.
    """
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ModelError(f"{path.parent} holds {held}; name another folder with --run")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def recipe_method(path: Path) -> str | None:
    """The method that a recipe is for; None for ZSE-SBIR, whose recipes do not name it, and a file that cannot be read.

    Raises ModelError where there is no such file.
    """
    try:
        found = recipe_content(recipe_file(path)).get("method")
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _counts(recipe: Recipe) -> dict[str, int]:
    """The numbers of a recipe that count something of which there must be one."""
    batch = recipe.batch
    return {
        "steps": min(phase.steps for phase in recipe.phases),
        "batch.classes": batch.classes,
        "batch.photos": batch.photos,
        "batch.sketches": batch.sketches,
        "save_every": recipe.save_every,
        "evaluate_every": recipe.evaluate_every,
        "evaluate_share": recipe.evaluate_share,
        "choose_share": recipe.choose_share,
    }


def _unusable(path: Path, why: str) -> ModelError:
    """The error for a recipe that cannot be used."""
    return ModelError(
        f"{path} is not a usable training recipe: {why}; model/papers/recipe.py says which keys there are"
    )


def recipe_content(path: Path) -> dict[str, Any]:
    """The keys of a recipe over those of its base; tables are merged key by key."""
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    base = content.pop("base", None)
    if base is None:
        return content
    merged = recipe_content(path.parent / base if Path(base).suffix else recipe_file(Path(base)))
    for name, value in content.items():
        merged[name] = merged.get(name, {}) | value if isinstance(value, dict) else value
    return merged

"""What a training run does: one frozen recipe, read from a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config import ModelConfig, preset
from model.errors import ModelError


@dataclass(frozen=True)
class Phase:
    """Part of a run at one input size. ``encoder`` False trains cross-attention and relation network alone."""

    image_size: int
    steps: int
    encoder: bool = True


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        classes: distinct classes a step, one photo of each.
        near: share of them chosen because they look like the first one; the rest are random.
        sketches: sketches of each class; the first of them goes through the relation network.
        drawn: further photos that are turned into line drawings.
    """

    classes: int = 24
    near: float = 0.5
    sketches: int = 2
    drawn: int = 16


@dataclass(frozen=True)
class Weights:
    """Weights of the losses; 0 switches one off. See ``model.losses``."""

    bank: float = 1.0
    contrast: float = 0.0
    labels: float = 1.0
    teacher: float = 1.0
    relation: float = 1.0


@dataclass(frozen=True)
class Optimiser:
    """AdamW with a linear warm-up, a constant stretch, a cosine decay to a hundredth, and an average over steps.

    ``stable`` is the share of all steps before the decay begins.
    """

    encoder_rate: float = 1e-4
    head_rate: float = 5e-4
    decay: float = 0.05
    warmup: int = 50
    stable: float = 0.0
    clip: float = 1.0
    average: float = 0.998


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    Attributes:
        preset, network: the network, and fields of its configuration that differ from the preset.
        split: parts of the data's split.json that are trained on, "thin" for the classes that it leaves out; "val" is
            what choices are made on, and a run that trains on it keeps those of the checkpoint that it began with.
        phases: in order; the learning rate's schedule spans all of them.
        temperature: of the bank loss.
        seed: every step's choices follow from it and the step's number.
        save_every, evaluate_every: steps between checkpoints and between looks at the validation classes.
        evaluate_share: one in so many validation queries and photos is used for those looks.
        bf16: whether to compute in bfloat16 what autocast allows; on where it was measured faster.
    """

    preset: str
    phases: tuple[Phase, ...]
    network: dict[str, Any] = field(default_factory=dict)
    split: tuple[str, ...] = ("train",)
    batch: Batch = Batch()
    weights: Weights = Weights()
    optimiser: Optimiser = Optimiser()
    temperature: float = 0.07
    seed: int = 0
    save_every: int = 50
    evaluate_every: int = 250
    evaluate_share: int = 3
    bf16: bool = True

    @property
    def steps(self) -> int:
        """Of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def config(self, image_size: int) -> ModelConfig:
        """The network's configuration at one input size."""
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
    """A recipe from TOML. Raises ModelError naming the file and what is wrong in it."""
    try:
        content = tomllib.loads(path.read_text())
        tables = {"batch": Batch, "weights": Weights, "optimiser": Optimiser}
        fields: dict[str, Any] = {
            name: tables[name](**value) if name in tables else tuple(value) if name == "split" else value
            for name, value in content.items()
        }
        fields["phases"] = tuple(Phase(**phase) for phase in content.get("phases", ()))
        recipe = Recipe(**fields)
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise ModelError(f"{path} is not a usable training recipe: {error}") from error
    if not recipe.phases or "unseen" in recipe.split:
        raise ModelError(f'{path}: a recipe needs [[phases]] and may not train on "unseen"')
    if recipe.optimiser.warmup < 1 or not 0 <= recipe.optimiser.stable < 1:
        raise ModelError(f"{path}: warmup must be at least 1, and stable lie in [0, 1)")
    fixed = {"mean", "std", "released_preprocessing", "image_size"} & set(recipe.network)
    if fixed:
        raise ModelError(f"{path}: [network] may not set {', '.join(sorted(fixed))}; training fixes how pictures look")
    for phase in recipe.phases:
        recipe.config(phase.image_size)
    return recipe

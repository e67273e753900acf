"""From the first step to the checkpoint: what trainings of all networks with one vector an image have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import torch
from torch import nn

from model.checkpoint import save_checkpoint
from model.datasets import Corpus, subsampled
from model.network import Method, RetNetwork, multiplies_bf16
from model.papers.options import Glimpse, Run, Watch
from model.training import Loop, Validated, calibrated, validation_figures

Trained = TypeVar("Trained", bound=nn.Module)


class VectorRecipe(Validated, Protocol):
    """What is read of the recipe; ``model.papers.recipe`` explains each."""

    @property
    def steps(self) -> int: ...
    @property
    def pictures(self) -> int: ...
    @property
    def choose_share(self) -> int: ...


class _Optimiser(Protocol):
    @property
    def clip(self) -> float: ...
    @property
    def average(self) -> float: ...


class _Fields(Protocol):
    """The fields of a recipe that its properties are made of."""

    @property
    def optimiser(self) -> _Optimiser: ...
    @property
    def bf16(self) -> bool: ...


class OneVectorRecipe:
    """What the recipes of these trainings have in common.

    It has no fields: a saved training is known by the text of its recipe, which has the fields of its own class alone.
    """

    @property
    def clip(self: _Fields) -> float:
        """The largest norm of the gradients."""
        return self.optimiser.clip

    @property
    def average(self: _Fields) -> float:
        """How much of the running average of what is trained is kept at each step."""
        return self.optimiser.average

    @property
    def further_sketches(self) -> bool:
        """Whether it uses sketches of classes without photos: never."""
        return False

    @property
    def line_drawings(self) -> bool:
        """Whether it uses line drawings of photos: never."""
        return False

    @property
    def dtype(self: _Fields) -> torch.dtype:
        """The precision to compute in on this machine."""
        return torch.bfloat16 if self.bf16 and multiplies_bf16() else torch.float32

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that the losses train."""
        return ("ret",)


def complete(
    trainer: Loop[Trained],
    network: Callable[[], RetNetwork],
    recipe: VectorRecipe,
    validation: Corpus,
    run: Run,
    notes: Mapping[str, str],
    report: Callable[[str], object],
    watch: Watch,
    further: Callable[[], Mapping[str, float]] = dict,
) -> bool:
    """Makes the steps, calibrates the network on the validation classes, and writes the checkpoint.

    Args:
        trainer: the training. network: gives the network as it would be saved now.
        notes: for the checkpoint. report, watch: as in ``model.papers.train``.
        further: gives further figures of the network for the log, whenever it is measured.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    """

    def validate(at: Loop[Trained]) -> dict[str, float]:
        # Both look at copies of it.
        now = network()
        figures = validation_figures(now, recipe, validation) | dict(further())
        seen = at.step * recipe.pictures // recipe.steps
        watch(Glimpse(at.step, recipe.steps, seen, now, recipe.methods, figures))
        return figures

    trainer.run(validate, until=run.until)
    if trainer.step < recipe.steps:
        report(f"stopped at step {trainer.step} of {recipe.steps}; the same command continues from here")
        return False
    if run.target is None:
        return True
    chosen_on = subsampled(validation, recipe.choose_share, recipe.choose_share)
    ready, figures = calibrated(network(), chosen_on, recipe.dtype, recipe.methods)
    save_checkpoint(ready.half(), run.target, {**notes, "validation": json.dumps(figures)})
    report(f"wrote {run.target}; mAP@all on validation classes: {figures}")
    return True

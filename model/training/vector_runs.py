"""From the first step to the checkpoint: what trainings of all networks with one vector an image have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from torch import nn

from model.checkpoint import save_checkpoint
from model.datasets import Corpus, subsampled
from model.network import RetNetwork
from model.training.calibration import Validated, calibrated, validation_figures
from model.training.loop import Loop
from model.training.options import Glimpse, Run, Watch

Trained = TypeVar("Trained", bound=nn.Module)


class VectorRecipe(Validated, Protocol):
    """What is read of the recipe; ``model.training.recipe`` explains each."""

    @property
    def steps(self) -> int: ...
    @property
    def pictures(self) -> int: ...
    @property
    def choose_share(self) -> int: ...


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
        notes: for the checkpoint. report, watch: as in ``model.training.train``.
        further: gives further figures of the network for the log, whenever it is measured.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    """

    def validate(at: Loop[Trained]) -> dict[str, float]:
        figures = validation_figures(network(), recipe, validation) | dict(further())
        seen = at.step * recipe.pictures // recipe.steps
        watch(Glimpse(at.step, recipe.steps, seen, network(), recipe.methods, figures))
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

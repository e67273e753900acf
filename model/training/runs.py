"""A whole training, from a recipe's file to a checkpoint's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import load_network, save_checkpoint
from model.datasets import cache_folder, subsampled
from model.errors import ModelError
from model.evaluation import counts
from model.network import read_backbone
from model.training.calibration import calibrated, glance, with_calibration
from model.training.loop import Trainer
from model.training.recipe import read_recipe
from model.training.training_set import training_corpora, training_set


@dataclass(frozen=True)
class Run:
    """The options of ``python -m model train``.

    Attributes:
        recipe: its TOML file.
        backbone: weights to start from, a file or a timm tag; they are the teacher, too.
        folder: where its state lies; a run found there is gone on with.
        target: the checkpoint to write.
        data: class folders; None for the data that SKETCH_SEARCH_DATA names.
        start: a checkpoint to begin with in the backbone's place.
        until: the step to stop after; None for the recipe's last.
    """

    recipe: Path
    backbone: str
    folder: Path
    target: Path
    data: Path | None = None
    start: Path | None = None
    until: int | None = None


def train(run: Run, say: Callable[[str], object]) -> bool:
    """Trains, chooses on validation classes what the network is offered for, writes the checkpoint.

    Returns whether it came to the recipe's end; else the same run goes on from where it stopped.
    Raises ModelError for a recipe, start or data that do not fit.
    """
    recipe = read_recipe(run.recipe)
    training, validation = training_corpora(run.data, recipe)
    if validation is None and run.start is None:
        raise ModelError("a training that leaves no classes to choose on needs --start, whose choices it keeps")
    chosen = f"choices are made on {counts(validation)}" if validation else f"choices are those of {run.start}"
    say(f"training on {counts(training)}, {recipe.pictures:,} of them in all steps; {chosen}")
    data, backbone = training_set(training, cache_folder() / "pixels"), read_backbone(run.backbone)
    start = load_network(run.start) if run.start else None
    trainer = Trainer(recipe, data, backbone, run.folder, start)
    trainer.run((lambda at: glance(at, validation)) if validation else None, until=run.until)
    if trainer.step < recipe.steps:
        say(f"stopped at step {trainer.step} of {recipe.steps}; the same command goes on from here")
        return False
    notes = {"origin": f"trained by recipe {run.recipe.name} from {(run.start or Path(run.backbone)).name}"}
    if validation:
        chosen_on = subsampled(validation, recipe.choose_share, recipe.choose_share)
        dtype = torch.bfloat16 if recipe.bf16 else torch.float32
        network, figures = calibrated(trainer.average, chosen_on, dtype, recipe.methods)
        notes["validation mAP@all"] = json.dumps(figures)
        said = f"; mAP@all on validation classes: {figures}"
    else:
        assert start is not None
        network, said = with_calibration(trainer.average, start.calibration), ""
    save_checkpoint(network.half(), run.target, notes)
    say(f"wrote {run.target}{said}")
    return True

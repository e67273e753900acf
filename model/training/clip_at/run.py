"""A whole training of CLIP-AT, from a recipe file to a checkpoint file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from model.checkpoint import save_checkpoint
from model.datasets import Corpus, cache_folder, drawn_from, subsampled, with_pairs
from model.errors import ModelError
from model.evaluation import counts, measure_instances, score_matrices
from model.training.calibration import calibrated, trained_matcher, validation_figures
from model.training.clip_at.recipe import ClipAtRecipe, read_clip_at_recipe
from model.training.clip_at.start import read_start
from model.training.clip_at.trainer import ClipAtTrainer
from model.training.options import Glimpse, Run, Watch, check_target, unwatched
from model.training.training_set import training_corpora, training_set


def train_clip_at(run: Run, report: Callable[[str], object], watch: Watch = unwatched) -> bool:
    """Trains a network of CLIP-AT, calibrates it on the validation classes, and writes the checkpoint.

    ``report`` gets sentences about the progress; ``watch`` is that of ``model.training.train``.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    Raises ModelError for a recipe, backbone, word vectors or data that do not fit together.
    """
    recipe = read_clip_at_recipe(run.recipe)
    # First what takes no time: preparing many pictures takes minutes.
    check_target(run)
    if run.start is not None:
        raise ModelError("CLIP-AT starts from a backbone alone: leave --start out")
    pictures = training_corpora(run.data, recipe)
    training, validation = pictures.training, pictures.validation
    if validation is None:
        raise ModelError('a recipe of CLIP-AT is calibrated on the validation classes: leave "val" out')
    start = read_start(recipe, run.backbone, run.words)
    texts = start.texts(training.labels)
    report(f"text vectors of {len(texts)} classes from {start.texts_from}")
    report(
        f"training on {counts(training)}, {recipe.pictures:,} of them in all steps; calibrated on {counts(validation)}"
    )
    trainer = ClipAtTrainer(recipe, training_set(training, cache_folder() / "pixels"), texts, start.vit, run.folder)

    def validate(at: ClipAtTrainer) -> dict[str, float]:
        network = at.trained
        figures = validation_figures(network, recipe, validation) | _instances(at, recipe, validation)
        seen = at.step * recipe.pictures // recipe.steps
        watch(Glimpse(at.step, recipe.steps, seen, network, recipe.methods, figures))
        return figures

    trainer.run(validate, until=run.until)
    if trainer.step < recipe.steps:
        report(f"stopped at step {trainer.step} of {recipe.steps}; the same command continues from here")
        return False
    if run.target is None:
        return True
    chosen_on = subsampled(validation, recipe.choose_share, recipe.choose_share)
    network, figures = calibrated(trainer.trained, chosen_on, recipe.dtype, recipe.methods)
    notes = {
        "origin": f"trained by recipe {run.recipe.name} from {Path(run.backbone).name}",
        "texts": start.texts_from,
        "validation": json.dumps(figures),
    }
    save_checkpoint(network.half(), run.target, notes)
    report(f"wrote {run.target}; mAP@all on validation classes: {figures}")
    return True


def _instances(at: ClipAtTrainer, recipe: ClipAtRecipe, validation: Corpus) -> dict[str, float]:
    """How often the photo that a sketch was drawn from comes first in its class; nothing where none was drawn."""
    share = recipe.evaluate_share
    part = Corpus(validation.sketches[::share], validation.photos)
    if not recipe.fine_grained or not (drawn_from(part) >= 0).any():
        return {}
    pairs = with_pairs(part)
    found = measure_instances(pairs, score_matrices(trained_matcher(at.trained, recipe.dtype, recipe.methods), pairs))
    return {"val_acc_1": round(found.figures["ret"]["acc_1"], 4)}

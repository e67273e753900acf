"""A whole training, from a recipe file to a checkpoint file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from model.checkpoint import load_zse_network, save_checkpoint
from model.datasets import IMAGENET_PART, GroupedTask, cache_folder, read_large_task, subsampled
from model.errors import ModelError
from model.evaluation import counts
from model.network import UNCALIBRATED, read_backbone
from model.papers.clip_at import is_clip_at_recipe, train_clip_at
from model.papers.options import Glimpse, Run, Watch, check_target, unwatched
from model.papers.recipe import Recipe, read_recipe
from model.papers.sketch_an_anchor import is_anchor_recipe, train_anchors
from model.papers.training_set import training_corpora, training_set
from model.papers.zse.giving_words import with_words
from model.papers.zse.prior import with_chosen_prior, with_prior
from model.papers.zse.trainer import Trainer
from model.training import calibrated, validation_figures


def train(run: Run, report: Callable[[str], object], watch: Watch = unwatched) -> bool:
    """Trains a network of the kind that the recipe is for.

    ``report`` gets sentences about the progress. ``watch`` is called whenever the network was measured on the
    validation classes: every ``evaluate_every`` steps and at the end, before the state of that step is saved. A
    training that goes on may repeat steps, and then shows them again.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    Raises ModelError for a recipe, start or data that do not fit together.
    """
    if is_anchor_recipe(run.recipe):
        return train_anchors(run, report, watch)
    return (train_clip_at if is_clip_at_recipe(run.recipe) else train_zse)(run, report, watch)


def train_zse(run: Run, report: Callable[[str], object], watch: Watch = unwatched) -> bool:
    """Trains a network of ZSE-SBIR, calibrates it on the validation classes, and writes the checkpoint.

    A recipe that is evaluated in a gallery of everything gives the network a prior, too. A recipe that trains on the
    validation classes keeps the calibration of ``run.start``, and the weights of its prior. The network gets a
    vocabulary of what its photos show. A training on ``run.data`` keeps the whole prior and the vocabulary of its
    start. ``report`` and ``watch`` as for ``train``.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    Raises ModelError for a recipe, start or data that do not fit together.
    """
    recipe = read_recipe(run.recipe)
    # First what takes no time: preparing many pictures takes minutes, and a training hours.
    check_target(run)
    backbone = read_backbone(run.backbone)
    start = load_zse_network(run.start) if run.start else None
    pictures = training_corpora(run.data, recipe)
    training, validation = pictures.training, pictures.validation
    if validation is None and start is None:
        raise ModelError(
            "a recipe that trains on the validation classes needs --start, whose calibration it keeps; "
            "sketch-search model info names the file of the default network"
        )
    chosen = f"calibrated on {counts(validation)}" if validation else f"calibration of {run.start}"
    further = pictures.further
    if beside := [
        f"{len(found):,} {what}"
        for what, found in (
            ("sketches without photos", further.sketches),
            ("photos without sketches", further.photos),
            ("line drawings", further.lines),
        )
        if found
    ]:
        report("beside the classes with both: " + ", ".join(beside))
    report(f"training on {counts(training)}, {recipe.pictures:,} of them in all steps; {chosen}")
    data = training_set(training, cache_folder() / "pixels", further)
    kept = start.calibration if start else UNCALIBRATED
    trainer = Trainer(recipe, data, backbone, run.folder, start)
    large = _large_validation(recipe) if run.data is None and validation else None

    def validate(at: Trainer) -> dict[str, float]:
        if validation is None:
            return {}
        figures = validation_figures(at.average, recipe, validation, large)
        seen = at.step * recipe.pictures // recipe.steps
        watch(Glimpse(at.step, recipe.steps, seen, at.average, recipe.methods, figures))
        return figures

    trainer.run(validate if validation else None, until=run.until)
    if trainer.step < recipe.steps:
        report(f"stopped at step {trainer.step} of {recipe.steps}; the same command continues from here")
        return False
    if run.target is None:
        return True
    trained = trainer.average
    if run.data is not None and start is not None:
        # The pictures that its prior was made of are not among these.
        trained = trained.prior_replaced(start.prior)
    notes = {"origin": f"trained by recipe {run.recipe.name} from {(run.start or Path(run.backbone)).name}"}
    if validation:
        chosen_on = subsampled(validation, recipe.choose_share, recipe.choose_share)
        harmonic: dict[str, float] = {}
        if large is not None:
            trained, harmonic = with_chosen_prior(trained, training, further, large, recipe.methods, recipe.dtype)
        network, figures = calibrated(trained, chosen_on, recipe.dtype, recipe.methods)
        figures |= harmonic
        notes["validation"] = json.dumps(figures)
        said = f"; mAP@all on validation classes, and harmonic means in a gallery of everything: {figures}"
    else:
        if run.data is None and start is not None and start.prior is not None:
            weights = float(start.prior.ret_weight), float(start.prior.relation_weight)
            trained = with_prior(trained, training, further, *weights)
        network, said = trained.with_calibration(kept), ""
    if run.data is None:
        network = with_words(network, pictures, trainer.teacher)
    elif start is not None:
        network = network.vocabulary_replaced(start.vocabulary, start.config.words)
    save_checkpoint(network.half(), run.target, notes)
    report(f"wrote {run.target}{said}")
    return True


def _large_validation(recipe: Recipe) -> GroupedTask | None:
    """Trained and validation classes in one gallery, as far as the recipe wants to see it; see ``read_large_task``."""
    if not recipe.evaluate_everything:
        return None
    trained = "+".join(part for part in recipe.split if part not in ("more", IMAGENET_PART))
    return read_large_task("everything", "val", trained).subsampled(recipe.evaluate_everything, 1)

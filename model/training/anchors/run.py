"""A whole training of Sketch-an-Anchor, from a recipe file to a checkpoint file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from model.checkpoint import save_checkpoint
from model.datasets import Corpus, cache_folder, data_folder, read_split, subsampled
from model.errors import ModelError
from model.evaluation import counts
from model.network import read_backbone
from model.training.anchors.features import pretrained_features
from model.training.anchors.photos import chosen_photos
from model.training.anchors.recipe import AnchorRecipe, read_anchor_recipe
from model.training.anchors.semantic import SemanticAnchors, VisualAnchors
from model.training.anchors.trainer import AnchorTrainer
from model.training.anchors.words import word_anchors
from model.training.calibration import calibrated, validation_figures
from model.training.options import Glimpse, Run, Watch, check_target, unwatched
from model.training.training_set import TrainingSet, training_corpora, training_set
from model.training.word_vectors import read_word_vectors


def train_anchors(run: Run, report: Callable[[str], object], watch: Watch = unwatched) -> bool:
    """Trains a network of Sketch-an-Anchor, calibrates it on the validation classes, and writes the checkpoint.

    ``report`` gets sentences about the progress; ``watch`` is that of ``model.training.train``.

    Returns whether the recipe was completed; if not, the same run continues where it stopped.
    Raises ModelError for a recipe, backbone, word vectors or data that do not fit together.
    """
    recipe = read_anchor_recipe(run.recipe)
    # First what takes no time: preparing many pictures takes minutes.
    check_target(run)
    if run.start is not None:
        raise ModelError("Sketch-an-Anchor starts from a backbone alone: leave --start out")
    backbone = read_backbone(run.backbone)
    pictures = training_corpora(run.data, recipe)
    training, validation = pictures.training, pictures.validation
    if validation is None:
        raise ModelError('a recipe of Sketch-an-Anchor is calibrated on the validation classes: leave "val" out')
    words = None
    notes = {"origin": f"trained by recipe {run.recipe.name} from {Path(run.backbone).name}"}
    if "word" in recipe.config.anchors:
        vectors = read_word_vectors(run.words)
        report(f"word anchors from {vectors.name}")
        notes["words"] = vectors.name
        words = word_anchors(
            vectors,
            training.labels,
            recipe.names,
            neighbours=recipe.anchoring.neighbours if recipe.anchoring.randomised else 0,
            kept_out=_untrained(run.data, validation),
        )
    report(
        f"training on {counts(training)}, {recipe.pictures:,} of them in all steps; calibrated on {counts(validation)}"
    )
    data = training_set(training, cache_folder() / "pixels")
    anchors = SemanticAnchors(words, visual_anchors(recipe, data, backbone))
    if recipe.photos is not None:
        data = chosen_photos(recipe.photos, data, _features(recipe, data, backbone))
    trainer = AnchorTrainer(recipe, data, anchors, backbone, run.folder)

    def validate(at: AnchorTrainer) -> dict[str, float]:
        network = at.average.network
        figures = validation_figures(network, recipe, validation)
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
    network, figures = calibrated(trainer.average.network, chosen_on, recipe.dtype, recipe.methods)
    save_checkpoint(network.half(), run.target, notes | {"validation": json.dumps(figures)})
    report(f"wrote {run.target}; mAP@all on validation classes: {figures}")
    return True


def visual_anchors(recipe: AnchorRecipe, data: TrainingSet, backbone: dict[str, torch.Tensor]) -> VisualAnchors | None:
    """The visual anchors of the training's classes; None for a recipe without them."""
    if "visual" not in recipe.config.anchors:
        return None
    return VisualAnchors.of_features(_features(recipe, data, backbone), data.photo_rows)


def _features(recipe: AnchorRecipe, data: TrainingSet, backbone: dict[str, torch.Tensor]) -> torch.Tensor:
    """(m, d): what the pretrained ViT says of all photos."""
    return pretrained_features(recipe.config, backbone, data.photos, data.key, cache_folder() / "features")


def _untrained(folder: Path | None, validation: Corpus) -> tuple[str, ...]:
    """Classes whose names the training may not know: those of validation and, of the optional data, the unseen ones."""
    return validation.labels if folder is not None else (*validation.labels, *read_split(data_folder(), "unseen"))

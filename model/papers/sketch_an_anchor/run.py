"""A whole training of Sketch-an-Anchor, from a recipe file to a checkpoint file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from model.datasets import Corpus, cache_folder, data_folder, read_split
from model.errors import ModelError
from model.evaluation import counts
from model.network import read_backbone
from model.papers.options import Run, Watch, check_target, unwatched
from model.papers.sketch_an_anchor.features import pretrained_features
from model.papers.sketch_an_anchor.photos import chosen_photos
from model.papers.sketch_an_anchor.recipe import AnchorRecipe, read_anchor_recipe
from model.papers.sketch_an_anchor.semantic import SemanticAnchors, VisualAnchors
from model.papers.sketch_an_anchor.trainer import AnchorTrainer
from model.papers.sketch_an_anchor.words import word_anchors
from model.papers.training_set import TrainingSet, training_corpora, training_set
from model.papers.vector_runs import complete
from model.papers.word_vectors import read_word_vectors


def train_anchors(run: Run, report: Callable[[str], object], watch: Watch = unwatched) -> bool:
    """Trains a network of Sketch-an-Anchor, calibrates it on the validation classes, and writes the checkpoint.

    ``report`` gets sentences about the progress; ``watch`` is that of ``model.papers.train``.

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
    return complete(trainer, lambda: trainer.average.network, recipe, validation, run, notes, report, watch)


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

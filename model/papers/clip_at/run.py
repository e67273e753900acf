"""A whole training of CLIP-AT, from a recipe file to a checkpoint file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.datasets import Corpus, cache_folder, drawn_from, with_pairs
from model.errors import ModelError
from model.evaluation import counts, measure_instances, score_matrices
from model.papers.clip_at.recipe import ClipAtRecipe, read_clip_at_recipe
from model.papers.clip_at.start import read_start
from model.papers.clip_at.trainer import ClipAtTrainer
from model.papers.options import Run, Watch, check_target, unwatched
from model.papers.training_set import training_corpora, training_set
from model.papers.vector_runs import complete
from model.training import trained_matcher


def train_clip_at(run: Run, report: Callable[[str], object], watch: Watch = unwatched) -> bool:
    """Trains a network of CLIP-AT, calibrates it on the validation classes, and writes the checkpoint.

    ``report`` gets sentences about the progress; ``watch`` is that of ``model.papers.train``.

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
    notes = {"origin": f"trained by recipe {run.recipe.name} from {Path(run.backbone).name}", "texts": start.texts_from}
    return complete(
        trainer,
        lambda: trainer.trained,
        recipe,
        validation,
        run,
        notes,
        report,
        watch,
        further=lambda: _instances(trainer, recipe, validation),
    )


def _instances(at: ClipAtTrainer, recipe: ClipAtRecipe, validation: Corpus) -> dict[str, float]:
    """How often the photo that a sketch was drawn from comes first in its class; nothing where none was drawn."""
    share = recipe.evaluate_share
    part = Corpus(validation.sketches[::share], validation.photos)
    if not recipe.fine_grained or not (drawn_from(part) >= 0).any():
        return {}
    pairs = with_pairs(part)
    found = measure_instances(pairs, score_matrices(trained_matcher(at.trained, recipe.dtype, recipe.methods), pairs))
    return {"val_acc_1": round(found.figures["ret"]["acc_1"], 4)}

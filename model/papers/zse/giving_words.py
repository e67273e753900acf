"""A vocabulary for a network at the end of its training, or for a checkpoint that has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from model.checkpoint import load_zse_network, read_metadata, save_checkpoint
from model.datasets import (
    Picture,
    cache_folder,
    data_folder,
    prepared_pixels,
    read_synonyms,
    rows_of_each,
    some_of_each,
)
from model.errors import ModelError
from model.images import Preprocessing
from model.network import Network, read_backbone
from model.papers.recipe import read_recipe
from model.papers.training_set import TrainingCorpora, training_corpora
from model.papers.zse.teacher import Teacher, ask_teacher
from model.papers.zse.vocabulary import with_vocabulary

# Photos of each class that it is fitted on; twice as many would take twice the time to encode.
PHOTOS_PER_CLASS = 16
# Sketches of each class that guesses are calibrated on.
SKETCHES_PER_CLASS = 5
# Sketches of each class that guesses are learned from.
DRAWN_PER_CLASS = 24


def give_words(
    source: Path, backbone: str, target: Path, report: Callable[[str], object], *, recipe: Path, data: Path | None
) -> None:
    """Writes the checkpoint at ``source`` with a vocabulary to ``target``; one that it has is made anew.

    Args:
        backbone: the pretrained ViT that says what photos show, a file or a timm tag.
        report: gets a sentence about the result.
        recipe: names the photos of the optional data, as for a training.
        data: class folders to take the photos from instead; None for the data that SKETCH_SEARCH_DATA names.

    Raises ModelError for a checkpoint, recipe or data that do not fit together.
    """
    if not target.parent.is_dir():
        raise ModelError(f"there is no folder {target.parent} to write {target.name} to; make it first")
    network, weights = load_zse_network(source), read_backbone(backbone)
    pictures = training_corpora(data, read_recipe(recipe))
    photos = some_of_each(pictures.training.photos + pictures.further.photos, PHOTOS_PER_CLASS)
    pixels = prepared_pixels(photos, "photo", Preprocessing(), cache_folder() / "pixels")
    # The ViT is asked about few photos, and its classes alone are wanted.
    teacher = ask_teacher(weights, network.config, pixels, torch.full((len(photos),), -1))
    synonyms = read_synonyms(data_folder()) if data is None else ()
    beliefs = teacher.probabilities
    network = with_vocabulary(network, photos, beliefs, sketches_of(pictures), drawn_of(pictures), synonyms)
    notes = {name: text for name, text in read_metadata(source).items() if name in ("origin", "validation")}
    save_checkpoint(network.half(), target, notes)
    report(f"wrote {target}: a vocabulary of {len(network.config.words):,} words, from {len(photos):,} photos")


def with_words(network: Network, pictures: TrainingCorpora, teacher: Teacher | None) -> Network:
    """A copy of a network that was trained on these pictures of the optional data, with a vocabulary.

    teacher: what the pretrained ViT says of all photos; None where it was not asked, so that words are classes alone.
    """
    photos = pictures.training.photos + pictures.further.photos
    rows = rows_of_each(photos, PHOTOS_PER_CLASS)
    beliefs = teacher.probabilities[rows] if teacher else torch.zeros(len(rows), 0)
    chosen, synonyms = [photos[row] for row in rows], read_synonyms(data_folder())
    return with_vocabulary(network, chosen, beliefs, sketches_of(pictures), drawn_of(pictures), synonyms)


def sketches_of(pictures: TrainingCorpora) -> tuple[Picture, ...]:
    """Sketches to calibrate guesses on: fresh ones and those of validation classes, or any where there are none."""
    fresh = pictures.fresh + (pictures.validation.sketches if pictures.validation else ())
    return some_of_each(fresh or pictures.training.sketches, SKETCHES_PER_CLASS)


def drawn_of(pictures: TrainingCorpora) -> tuple[Picture, ...]:
    """Sketches of the training that guesses are learned from, where others are left to calibrate them on."""
    if not pictures.fresh and pictures.validation is None:
        return ()
    return some_of_each(pictures.training.sketches + pictures.further.sketches, DRAWN_PER_CLASS)

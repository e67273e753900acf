"""Gives checkpoints the projection of regions, and what regions that show each thing are like."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sketch_search.model import datasets
from sketch_search.model.checkpoint import load_zse_network
from sketch_search.model.engine import Floats, Projection, Vocabulary
from sketch_search.model.errors import ModelError
from sketch_search.model.matcher import load
from sketch_search.model.papers.pictures import training_corpora
from sketch_search.model.papers.recipe import read_recipe
from sketch_search.model.papers.runs import check_target
from sketch_search.model.papers.vocabulary import PHOTOS_PER_CLASS, save_changed, word_of
from sketch_search.model.words import WordBook

# Numbers of a region. In 1,000 ordinary photos, all 192 found no more scenes than 64, and 64 more than 32: in the first
# 20 photos 0.49, 0.51 and 0.44 of 108 scenes.
WIDTH = 64
# Every _EVERY-th photo is enough to fit components on, and so many are encoded at once.
_EVERY, _AT_ONCE = 6, 16
# A thing covers an eighth of its photos at least. With 4 and 16 of the 64 regions, as many scenes were found within the
# first 20 photos, and fewer came first.
_SHOWING = 8
_ROUNDS = 3


def give_regions(source: Path, target: Path, *, recipe: Path, like: Path | None = None) -> None:
    """Writes a checkpoint with a projection of regions, fitted on training classes and ImageNet-1k, or ``like``'s.

    If it guesses things, it learns where regions show them, from ``recipe``. Raises ModelError without regions.
    """
    check_target(target)
    network = load_zse_network(source)
    projection = None if like is None else load_zse_network(like).projection
    if like is not None and projection is None:
        raise ModelError(f"{like} has no regions; leave --like out")
    if projection is None:
        data = datasets.data_folder()
        photos = (
            *datasets.read_data(data).of(datasets.read_split(data, "train")).photos,
            *datasets.read_imagenet(data).photos,
        )[::_EVERY]
        found = _regions(source, photos)
        projection = Projection.fit(found.reshape(-1, found.shape[2]), WIDTH)
    network, seen = network.projection_replaced(projection), None
    if network.vocabulary is not None and len(network.vocabulary.drawn):
        pictures = training_corpora(None, read_recipe(recipe))
        book = WordBook(network.config.words)
        some = datasets.some_of_each(pictures.training.photos, PHOTOS_PER_CLASS)
        words = [word_of(photo.label, book) for photo in some]
        shown = [photo for photo, word in zip(some, words, strict=True) if word >= 0]
        of_word = datasets.rows_by_label(word for word in words if word >= 0)
        learned = with_regions(network.vocabulary, projection, _regions(source, shown), of_word)
        network, seen = network.vocabulary_replaced(learned, network.config.words), pictures.seen
    save_changed(network, source, target, seen)
    print(f"wrote {target}: {WIDTH} numbers of each region of a photo")


def with_regions(
    vocabulary: Vocabulary, projection: Projection, regions: Floats, of_word: dict[int, list[int]]
) -> Vocabulary:
    """Adds where regions (p, m, d) that show things lie: from whole photos' places to the nearest regions' means."""
    places = np.zeros((len(vocabulary.places), len(projection.axes)), np.float32)
    for thing, word in enumerate(vocabulary.drawn.tolist()):
        if word not in of_word:
            continue
        photos = regions[of_word[word]]
        place = vocabulary.places[thing] if vocabulary.places[thing].any() else photos.mean(axis=(0, 1))
        for _ in range(_ROUNDS):
            nearest = np.argsort(-(photos @ place), axis=1)[:, :_SHOWING]
            place = np.take_along_axis(photos, nearest[..., None], axis=1).mean(axis=(0, 1))
        places[thing] = projection(place)
    return replace(vocabulary, region_places=places)


def _regions(checkpoint: Path, photos: Sequence[datasets.Picture]) -> Floats:
    """Computes the local [Ret] of photos' regions, (p, m, d) of length 1."""
    matcher = load(checkpoint)
    # Regions as they are.
    matcher.engine.projection = Projection(np.eye(matcher.config.width, dtype=np.float32))
    found: list[Floats] = []
    for start in tqdm(range(0, len(photos), _AT_ONCE), desc="looking at photos", disable=None):
        some = [matcher.prepare(matcher.open(one.path, "photo"), "photo") for one in photos[start : start + _AT_ONCE]]
        regions = matcher.engine.encode(np.stack(some), "photo").regions
        if regions is None:
            raise ModelError(f"{checkpoint} has no regions; only two-sided networks with an even patch grid have")
        found.append(regions)
    return np.concatenate(found)

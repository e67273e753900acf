"""A training with a few photos of each class: those nearest to its visual anchor, or farthest from it (section 4.5)."""

from __future__ import annotations

import dataclasses

import torch

from model.papers.sketch_an_anchor.recipe import ChosenPhotos
from model.papers.training_set import TrainingSet


def chosen_photos(choice: ChosenPhotos, data: TrainingSet, features: torch.Tensor) -> TrainingSet:
    """The same training pictures with fewer photos of each class.

    features: (m, d), L2-normalised, of all photos of ``data``; their mean over a class is its visual anchor.
    """
    rows = []
    for of_class in data.photo_rows:
        own = features[of_class]
        # Of features of one length, the nearest to a point are those with the largest products with it.
        order = (own @ own.mean(dim=0)).argsort(descending=not choice.farthest, stable=True)
        rows.append(of_class[order[: choice.count]])
    return dataclasses.replace(data, photo_rows=tuple(rows), key=f"{data.key} {choice}")

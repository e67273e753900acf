"""Fine-grained retrieval: the one photo that a sketch was drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets import Corpus, Picture, drawn_from
from model.errors import ModelError
from model.evaluation.per_query import PerQuery
from model.metrics import target_ranks

# Ranks that count as found: among the photos of the sketch's class and source, and in the whole gallery.
WITHIN = (1, 5, 10)
GALLERY = (1, 10)


@dataclass(frozen=True)
class InstanceEvaluation:
    """How often the photo that a sketch was drawn from is among the best ones.

    Attributes:
        queries, photos, classes: how many were measured.
        figures: for each method "acc_1", "acc_5" and "acc_10" among the photos of the sketch's class and source, and
            "gallery_acc_1" and "gallery_acc_10" among all photos; in 0..1.
        chance: the same figures of a random order.
        per_query: for each method and figure, 1 for a query whose photo was found, else 0.
    """

    queries: int
    photos: int
    classes: int
    figures: dict[str, dict[str, float]]
    chance: dict[str, float]
    per_query: PerQuery


def measure_instances(corpus: Corpus, matrices: Mapping[str, NDArray[np.floating]]) -> InstanceEvaluation:
    """The figures of each method's scores (sketches, photos), higher is better.

    Raises ModelError for a sketch that was drawn from none of the photos.
    """
    targets = drawn_from(corpus)
    if (targets < 0).any():
        raise ModelError(f"{corpus.sketches[int(targets.argmin())].path} was drawn from none of the photos")
    kinds = {kind: number for number, kind in enumerate(sorted({_kind(p) for p in corpus.photos}))}
    of_photo = np.array([kinds[_kind(p)] for p in corpus.photos])
    among = of_photo[targets][:, None] == of_photo[None]
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for method, scores in matrices.items():
        within, whole = target_ranks(scores, targets, among), target_ranks(scores, targets)
        values[method] = {f"acc_{k}": (within < k).astype(np.float64) for k in WITHIN}
        values[method] |= {f"gallery_acc_{k}": (whole < k).astype(np.float64) for k in GALLERY}
    sizes = among.sum(axis=1)
    chance = {f"acc_{k}": float(np.minimum(k / sizes, 1).mean()) for k in WITHIN}
    chance |= {f"gallery_acc_{k}": min(k / len(corpus.photos), 1.0) for k in GALLERY}
    return InstanceEvaluation(
        len(corpus.sketches),
        len(corpus.photos),
        len({p.label for p in corpus.sketches}),
        {method: {name: float(column.mean()) for name, column in f.items()} for method, f in values.items()},
        chance,
        PerQuery(corpus.sketches, values),
    )


def _kind(picture: Picture) -> tuple[str, str]:
    return picture.source, picture.label

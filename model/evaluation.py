"""Retrieval figures of a checkpoint on labelled sketches and photos."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import METHODS, Method, Modality
from model.corpus import Corpus, Picture
from model.errors import ImageError, ModelError
from model.images import open_image
from model.matcher import Matcher
from model.metrics import CategoryMetrics, category_metrics
from model.tokens import Tokens

ENCODED_AT_ONCE = 256


@dataclass(frozen=True)
class MethodFigures:
    """One method's figures: over all queries, over those of each source apart, and over those of some classes apart."""

    overall: CategoryMetrics
    by_source: dict[str, CategoryMetrics]
    apart: CategoryMetrics | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured, on how much.

    ``methods``: each method's figures, and, where the checkpoint has a threshold for it, those of its ranking after
    diffusion over the gallery as "rn+diffusion" and so on.
    """

    queries: int
    photos: int
    classes: int
    methods: dict[str, MethodFigures]


def evaluate(
    matcher: Matcher, corpus: Corpus, methods: Sequence[Method] | None = None, apart: Collection[str] = ()
) -> Evaluation:
    """Every sketch of the corpus a query, every photo in the gallery; relevant is what has the query's class.

    Queries of the classes ``apart`` are measured once more by themselves, against the same whole gallery.
    Raises ModelError where there is nothing to measure.
    """
    if not corpus.sketches or not corpus.photos:
        raise ModelError("an evaluation needs sketches and photos; found " + counts(corpus))
    relevant = relevance(corpus)
    if not relevant.any():
        raise ModelError("no sketch has a photo of its class; the two halves must use the same class names")
    queries = encode_pictures(matcher, corpus.sketches, "sketch")
    gallery = encode_pictures(matcher, corpus.photos, "photo")
    chosen = [m for m in METHODS if m in (methods or matcher.methods)]
    scores = matcher.scores_by(queries, gallery, chosen)
    matrices: dict[str, NDArray[np.floating]] = {method: scores[method].numpy() for method in chosen}
    if matcher.config.diffusion is not None:
        for method in chosen:
            matrices[f"{method}+diffusion"] = matcher.diffuse(scores[method], gallery.ret, method).numpy()
    sources = sorted({picture.source for picture in corpus.sketches})
    from_source = {s: np.array([p.source == s for p in corpus.sketches]) for s in sources}
    chosen_apart = np.array([p.label in apart for p in corpus.sketches])
    return Evaluation(
        len(corpus.sketches),
        len(corpus.photos),
        len({picture.label for picture in corpus.sketches}),
        {
            method: MethodFigures(
                category_metrics(matrix, relevant),
                {s: category_metrics(matrix[rows], relevant[rows]) for s, rows in from_source.items() if s},
                category_metrics(matrix[chosen_apart], relevant[chosen_apart]) if chosen_apart.any() else None,
            )
            for method, matrix in matrices.items()
        },
    )


def relevance(corpus: Corpus) -> NDArray[np.bool_]:
    """(sketches, photos): whether they are of one class."""
    numbers = {label: number for number, label in enumerate(corpus.labels)}
    rows = np.array([numbers[picture.label] for picture in corpus.sketches])
    columns = np.array([numbers[picture.label] for picture in corpus.photos])
    matches: NDArray[np.bool_] = rows[:, None] == columns[None]
    return matches


def encode_pictures(matcher: Matcher, pictures: Sequence[Picture], modality: Modality) -> Tokens:
    """All pictures' tokens, float32 on the CPU."""
    parts = []
    for start in range(0, len(pictures), ENCODED_AT_ONCE):
        batch = [_prepared(matcher, picture, modality) for picture in pictures[start : start + ENCODED_AT_ONCE]]
        parts.append(matcher.encode(torch.stack(batch), modality).to("cpu"))
    return Tokens.cat(parts)


def _prepared(matcher: Matcher, picture: Picture, modality: Modality) -> torch.Tensor:
    try:
        return matcher.prepare(open_image(picture.path), modality)
    except ImageError as error:
        raise ModelError(f"{picture.path}: {error}; remove it or mend it") from error


def counts(corpus: Corpus) -> str:
    """How much there is, in words."""
    return f"{len(corpus.sketches)} sketches and {len(corpus.photos)} photos of {len(corpus.labels)} classes"

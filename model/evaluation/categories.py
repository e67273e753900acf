"""Retrieval figures of a checkpoint on labelled sketches and photos."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets import Corpus, Picture
from model.errors import ImageError, ModelError
from model.evaluation.per_query import PerQuery
from model.matcher import Matcher
from model.metrics import CategoryMetrics, QueryMetrics, precision_by_recall, query_metrics
from model.network import METHODS, Method, Modality, Tokens

ENCODED_AT_ONCE = 256
# The row of a checkpoint's visual tokens alone, as the baseline ViT-Vis matches them.
VISUAL = "vis"


@dataclass(frozen=True)
class MethodFigures:
    """One method's figures: over all queries, over those of each source apart, and over those of some classes apart."""

    overall: CategoryMetrics
    by_source: dict[str, CategoryMetrics]
    apart: CategoryMetrics | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured, on how much.

    Attributes:
        queries, photos, classes: how much.
        methods: each method's figures, and, where the checkpoint has a threshold for it, those of its ranking after
            diffusion over the gallery as "rn+diffusion" and so on.
        each: the figures of every query that has a photo of its class.
        curves: by method, the precision at each of ``model.metrics.recall_levels``; empty unless asked for.
    """

    queries: int
    photos: int
    classes: int
    methods: dict[str, MethodFigures]
    each: PerQuery
    curves: dict[str, NDArray[np.float64]]


def evaluate(
    matcher: Matcher, corpus: Corpus, methods: Sequence[Method] | None = None, apart: Collection[str] = ()
) -> Evaluation:
    """Every sketch of the corpus a query, every photo in the gallery; relevant is what has the query's class.

    Queries of the classes ``apart`` are measured once more by themselves, against the same whole gallery.
    Raises ModelError where there is nothing to measure.
    """
    return measure(corpus, score_matrices(matcher, corpus, methods), apart)


def score_matrices(
    matcher: Matcher, corpus: Corpus, methods: Sequence[Method] | None = None, *, visual: bool = False
) -> dict[str, NDArray[np.floating]]:
    """(sketches, photos) float32, higher is better, by each method, and by it after diffusion where there is one.

    ``visual`` adds a row VISUAL, minus the distance of the normalised means of the patch tokens.
    Raises ModelError where there are no sketches or photos, or none of one class.
    """
    if not corpus.sketches or not corpus.photos:
        raise ModelError("an evaluation needs sketches and photos; found " + counts(corpus))
    _check_classes(corpus)
    queries = encode_pictures(matcher, corpus.sketches, "sketch")
    gallery = encode_pictures(matcher, corpus.photos, "photo")
    chosen = [m for m in METHODS if m in (methods or matcher.methods)]
    scores = matcher.scores_by(queries, gallery, chosen)
    matrices: dict[str, NDArray[np.floating]] = {method: scores[method].numpy() for method in chosen}
    if matcher.calibration.diffusion is not None:
        for method in chosen:
            matrices[f"{method}+diffusion"] = matcher.diffuse(scores[method], gallery.ret, method).numpy()
    if visual:
        matrices[VISUAL] = -matcher.ret_distances(visual_mean(queries), visual_mean(gallery)).numpy()
    return matrices


def measure(
    corpus: Corpus,
    matrices: Mapping[str, NDArray[np.floating]],
    apart: Collection[str] = (),
    *,
    curves: bool = False,
) -> Evaluation:
    """The figures of scores (sketches, photos) of a corpus, higher is better, by method."""
    _check_classes(corpus)
    relevant = relevance(corpus)
    each = {method: query_metrics(matrix, relevant) for method, matrix in matrices.items()}
    scored = tuple(corpus.sketches[row] for row in np.flatnonzero(relevant.any(axis=1)))
    rows_of = {s: np.array([p.source == s for p in scored]) for s in sorted({p.source for p in scored}) if s}
    rows_apart = np.array([p.label in apart for p in scored])
    return Evaluation(
        len(corpus.sketches),
        len(corpus.photos),
        len({picture.label for picture in corpus.sketches}),
        {
            method: MethodFigures(
                _mean(figures),
                {source: _mean(figures, rows) for source, rows in rows_of.items()},
                _mean(figures, rows_apart) if rows_apart.any() else None,
            )
            for method, figures in each.items()
        },
        PerQuery(scored, {method: _columns(figures) for method, figures in each.items()}),
        {method: precision_by_recall(m, relevant) for method, m in matrices.items()} if curves else {},
    )


def visual_mean(tokens: Tokens) -> Tokens:
    """Tokens whose [Ret] is the mean of the patch tokens."""
    mean = tokens.patches.mean(dim=1, keepdim=True)
    return Tokens(torch.cat([mean, tokens.patches], dim=1), tokens.positions)


def _check_classes(corpus: Corpus) -> None:
    if not {p.label for p in corpus.sketches} & {p.label for p in corpus.photos}:
        raise ModelError("no sketch has a photo of its class; the two halves must use the same class names")


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
        return matcher.prepare(matcher.open(picture.path, modality), modality)
    except ImageError as error:
        raise ModelError(f"{picture.path}: {error}; remove it or mend it") from error


def counts(corpus: Corpus) -> str:
    """How much there is, in words."""
    return f"{len(corpus.sketches)} sketches and {len(corpus.photos)} photos of {len(corpus.labels)} classes"


def _columns(figures: QueryMetrics) -> dict[str, NDArray[np.float64]]:
    """Under the names of `CategoryMetrics`."""
    return {
        "map_all": figures.average_precision,
        "map_200": figures.average_precision_200,
        "precision_100": figures.precision_100,
        "precision_200": figures.precision_200,
    }


def _mean(figures: QueryMetrics, rows: NDArray[np.bool_] | slice = slice(None)) -> CategoryMetrics:
    return CategoryMetrics(**{name: float(column[rows].mean()) for name, column in _columns(figures).items()})

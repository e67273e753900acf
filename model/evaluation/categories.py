"""Category retrieval: a photo is relevant where it shows the class of the sketch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets import Corpus
from model.evaluation.per_query import PerQuery
from model.evaluation.scoring import check_classes, score_matrices
from model.matcher import Matcher
from model.metrics import CategoryMetrics, QueryMetrics, precision_by_recall, query_metrics
from model.network import Method


@dataclass(frozen=True)
class MethodFigures:
    """One method's figures.

    Attributes:
        overall: over all queries.
        by_source: over the queries from each source.
        subset: over the queries of the classes that were asked for separately; None where there are none.
    """

    overall: CategoryMetrics
    by_source: dict[str, CategoryMetrics]
    subset: CategoryMetrics | None


@dataclass(frozen=True)
class CategoryEvaluation:
    """Figures of category retrieval.

    Attributes:
        queries, photos, classes: how many were measured.
        methods: each method's figures; those after diffusion are named "rn+diffusion" and so on.
        per_query: the figures of every query that has a photo of its class.
        curves: for each method the precision at each of ``model.metrics.recall_levels``; empty unless asked for.
    """

    queries: int
    photos: int
    classes: int
    methods: dict[str, MethodFigures]
    per_query: PerQuery
    curves: dict[str, NDArray[np.float64]]


def evaluate(
    matcher: Matcher, corpus: Corpus, methods: Sequence[Method] | None = None, subset: Collection[str] = ()
) -> CategoryEvaluation:
    """Scores the corpus with a checkpoint and measures it: every sketch is a query, all photos are the gallery.

    Args:
        methods: None for all that the checkpoint has.
        subset: classes whose queries are measured once more separately, against the same gallery.

    Raises:
        ModelError: there is nothing to measure.
    """
    return measure(corpus, score_matrices(matcher, corpus, methods), subset)


def measure(
    corpus: Corpus,
    matrices: Mapping[str, NDArray[np.floating]],
    subset: Collection[str] = (),
    *,
    curves: bool = False,
) -> CategoryEvaluation:
    """The figures of each method's scores (sketches, photos), higher is better; ``subset`` as in ``evaluate``.

    ``curves``: whether to compute precision over recall, too. Raises ModelError where no class has both a sketch and
    a photo.
    """
    check_classes(corpus)
    relevant = relevance(corpus)
    each = {method: query_metrics(matrix, relevant) for method, matrix in matrices.items()}
    scored = tuple(corpus.sketches[row] for row in np.flatnonzero(relevant.any(axis=1)))
    rows_of = {s: np.array([p.source == s for p in scored]) for s in sorted({p.source for p in scored}) if s}
    rows_subset = np.array([p.label in subset for p in scored])
    return CategoryEvaluation(
        len(corpus.sketches),
        len(corpus.photos),
        len({picture.label for picture in corpus.sketches}),
        {
            method: MethodFigures(
                _mean(figures),
                {source: _mean(figures, rows) for source, rows in rows_of.items()},
                _mean(figures, rows_subset) if rows_subset.any() else None,
            )
            for method, figures in each.items()
        },
        PerQuery(scored, {method: _columns(figures) for method, figures in each.items()}),
        {method: precision_by_recall(m, relevant) for method, m in matrices.items()} if curves else {},
    )


def relevance(corpus: Corpus) -> NDArray[np.bool_]:
    """(sketches, photos) bool: whether the photo shows the sketch's class."""
    labels = sorted({picture.label for picture in corpus.sketches})
    numbers = {label: number for number, label in enumerate(labels)}
    shown = np.zeros((len(labels), len(corpus.photos)), np.bool_)
    for column, picture in enumerate(corpus.photos):
        for label in (picture.label, *picture.also):
            if label in numbers:
                shown[numbers[label], column] = True
    matches: NDArray[np.bool_] = shown[[numbers[picture.label] for picture in corpus.sketches]]
    return matches


def _columns(figures: QueryMetrics) -> dict[str, NDArray[np.float64]]:
    """The figures under their names in `CategoryMetrics`."""
    return {
        "map_all": figures.average_precision,
        "map_200": figures.average_precision_200,
        "precision_100": figures.precision_100,
        "precision_200": figures.precision_200,
    }


def _mean(figures: QueryMetrics, rows: NDArray[np.bool_] | slice = slice(None)) -> CategoryMetrics:
    return CategoryMetrics(**{name: float(column[rows].mean()) for name, column in _columns(figures).items()})

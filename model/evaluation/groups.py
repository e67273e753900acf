"""Figures of queries in groups against one large gallery: the first page, and the whole ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets import GroupedTask
from model.evaluation.categories import relevance
from model.evaluation.per_query import PerQuery
from model.metrics import first_page, query_metrics

# Results that a person sees before scrolling.
FIRST = 10
FIGURES = ("precision_10", "hit_10", "map_all")


@dataclass(frozen=True)
class GroupFigures:
    """Means over the queries of one group, each in 0..1; see `model.metrics.first_page`."""

    queries: int
    precision_10: float
    hit_10: float
    map_all: float


@dataclass(frozen=True)
class GroupedEvaluation:
    """Figures of queries in groups.

    Attributes:
        queries, photos, classes: how many were measured.
        methods: for each method the figures of each group, "all" first.
        harmonic: for each method and figure, the harmonic mean of two groups; empty where the task has no two groups.
        by_size: for each method and size, mAP of finding the photos whose thing has that size, with
            those where it has another size left out of the ranking; empty but for ordinary photos.
        per_query: the figures of every query.
    """

    queries: int
    photos: int
    classes: int
    methods: dict[str, dict[str, GroupFigures]]
    harmonic: dict[str, dict[str, float]]
    by_size: dict[str, dict[str, float]]
    per_query: PerQuery


def measure_groups(task: GroupedTask, matrices: Mapping[str, NDArray[np.floating]]) -> GroupedEvaluation:
    """The figures of scores (sketches, photos) of the task's corpus, higher is better, by method."""
    relevant = relevance(task.corpus)
    queries = task.corpus.sketches
    rows = {"all": np.arange(len(queries))}
    rows |= {name: np.flatnonzero([q.label in labels for q in queries]) for name, labels in task.groups.items()}
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for method, scores in matrices.items():
        precision, hit = first_page(scores, relevant, FIRST)
        columns = (precision, hit, query_metrics(scores, relevant).average_precision)
        values[method] = dict(zip(FIGURES, columns, strict=True))
    methods = {
        method: {
            group: GroupFigures(len(chosen), **{name: float(column[chosen].mean()) for name, column in figures.items()})
            for group, chosen in rows.items()
        }
        for method, figures in values.items()
    }
    return GroupedEvaluation(
        len(task.corpus.sketches),
        len(task.corpus.photos),
        len({picture.label for picture in task.corpus.sketches}),
        methods,
        {method: _harmonic(groups, task.harmonic) for method, groups in methods.items()} if task.harmonic else {},
        {method: _by_size(scores, relevant, task.sizes) for method, scores in matrices.items()} if task.sizes else {},
        PerQuery(task.corpus.sketches, values),
    )


def _harmonic(groups: Mapping[str, GroupFigures], names: tuple[str, str]) -> dict[str, float]:
    first, second = (groups[name] for name in names)
    means = {}
    for figure in FIGURES:
        a, b = float(getattr(first, figure)), float(getattr(second, figure))
        means[figure] = 2 * a * b / (a + b) if a + b else 0.0
    return means


def _by_size(
    scores: NDArray[np.floating], relevant: NDArray[np.bool_], sizes: Mapping[str, NDArray[np.bool_]]
) -> dict[str, float]:
    found = {}
    for name, right in sizes.items():
        # Photos that are right, but of another size, are neither found nor missed: they go behind all others.
        only = np.where(relevant & ~right, -np.inf, scores)
        if right.any():
            found[name] = float(query_metrics(only, right).average_precision.mean())
    return found


def group_table(result: GroupedEvaluation) -> str:
    """One line a method and group."""
    width = max(len(name) for name in ("method", *result.methods)) + 2
    lines = [f"{result.queries} sketches of {result.classes} classes against {result.photos} photos", ""]
    lines.append(f"{'method':<{width}}{'queries':<24}" + "".join(f"{n:>10}" for n in ("P@10", "hit@10", "mAP@all")))
    for method, groups in result.methods.items():
        for number, (name, row) in enumerate(groups.items()):
            values = (row.precision_10, row.hit_10, row.map_all)
            title = f"{name} ({row.queries})"
            figures = "".join(f"{value:>10.4f}" for value in values)
            lines.append(f"{'' if number else method:<{width}}{title:<24}{figures}")
        if method in result.harmonic:
            means = (result.harmonic[method][figure] for figure in FIGURES)
            lines.append(f"{'':<{width}}{'harmonic mean':<24}" + "".join(f"{mean:>10.4f}" for mean in means))
        for size, value in result.by_size.get(method, {}).items():
            lines.append(f"{'':<{width}}{'covering ' + size:<44}{value:>10.4f}")
    return "\n".join(lines)


def group_json(result: GroupedEvaluation) -> dict[str, object]:
    """The figures, and how much was measured."""
    return {
        "methods": {
            method: {name: dataclasses.asdict(row) for name, row in groups.items()}
            for method, groups in result.methods.items()
        },
        "harmonic_mean": result.harmonic,
        "by_size": result.by_size,
        "queries": result.queries,
        "photos": result.photos,
        "classes": result.classes,
    }

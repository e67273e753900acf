"""Figures of the scores of a corpus: by category, by the one photo that a sketch was drawn from, and by groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets import Corpus, GroupedTask, drawn_from
from model.errors import ModelError
from model.evaluation.per_query import PerQuery
from model.evaluation.scoring import check_classes
from model.metrics import first_page, query_metrics, target_ranks

TITLES = {
    "map_all": "mAP@all",
    "map_200": "mAP@200",
    "precision_10": "P@10",
    "hit_10": "hit@10",
    "precision_100": "P@100",
    "precision_200": "P@200",
    "acc_1": "acc@1",
    "acc_5": "acc@5",
    "acc_10": "acc@10",
    "gallery_acc_1": "all@1",
    "gallery_acc_10": "all@10",
}
ALL, HARMONIC, SUBSET = "all", "harmonic mean", "without namesake"
# Results that a person sees before scrolling.
FIRST = 10
# Ranks that count as found: among the photos of the sketch's class and source, and in the whole gallery.
WITHIN = (1, 5, 10)
GALLERY = (1, 10)


@dataclass(frozen=True)
class Evaluation:
    """The figures of some methods.

    Attributes:
        queries, photos, classes: how many were measured.
        groups: how many queries each group has; the first is ALL.
        figures: for each method and group, means over queries by name, each in 0..1. A method may have groups of its
            own without a number of queries: HARMONIC, or sizes of things.
        per_query: the figures of every query that has a relevant photo.
    """

    queries: int
    photos: int
    classes: int
    groups: dict[str, int]
    figures: dict[str, dict[str, dict[str, float]]]
    per_query: PerQuery

    def table(self) -> str:
        """One line for each method and group, under the titles of the figures."""
        names = list(next(iter(self.figures.values()))[ALL])
        width = max(len(name) for name in ("method", *self.figures)) + 2
        lines = [
            f"{self.queries} sketches of {self.classes} classes against {self.photos} photos",
            "",
            f"{'method':<{width}}{'queries':<26}" + "".join(f"{TITLES[name]:>10}" for name in names),
        ]
        for method, groups in self.figures.items():
            for group, found in groups.items():
                title = f"{group} ({self.groups[group]})" if group in self.groups else group
                cells = "".join(f"{found[name]:>10.4f}" if name in found else " " * 10 for name in names)
                lines.append(f"{method if group == ALL else '':<{width}}{title:<26}{cells}".rstrip())
        return "\n".join(lines)

    def json(self) -> dict[str, object]:
        """All but the figures of single queries."""
        counts = {"queries": self.queries, "photos": self.photos, "classes": self.classes, "groups": self.groups}
        return {"methods": self.figures, **counts}


def measure(corpus: Corpus, matrices: Mapping[str, NDArray[np.floating]], subset: Collection[str] = ()) -> Evaluation:
    """Category retrieval: a photo is relevant where it shows the class of the sketch. Groups are the sketches' sources.

    Args:
        matrices: of each method the scores (sketches, photos), higher is better.
        subset: classes whose queries are a group, too.

    Raises ModelError where no class has both a sketch and a photo.
    """
    check_classes(corpus)
    relevant = relevance(corpus)
    scored = tuple(corpus.sketches[row] for row in np.flatnonzero(relevant.any(axis=1)))
    groups = {source: np.array([p.source == source for p in scored]) for source in {p.source for p in scored} if source}
    if (named := np.array([p.label in subset for p in scored])).any():
        groups[SUBSET] = named
    values = {method: query_metrics(matrix, relevant) for method, matrix in matrices.items()}
    return _evaluation(corpus, PerQuery(scored, values), dict(sorted(groups.items())))


def measure_instances(corpus: Corpus, matrices: Mapping[str, NDArray[np.floating]]) -> Evaluation:
    """Fine-grained retrieval: how often the photo that a sketch was drawn from is among the best ones.

    "acc_k" is among the photos of the sketch's class and source, "gallery_acc_k" among all photos. The method "chance"
    is a random order. Raises ModelError for a sketch that was drawn from none of the photos.
    """
    targets = drawn_from(corpus)
    if (targets < 0).any():
        raise ModelError(f"{corpus.sketches[int(targets.argmin())].path} was drawn from none of the photos")
    kinds: dict[tuple[str, str], int] = {}
    of_photo = np.array([kinds.setdefault((p.source, p.label), len(kinds)) for p in corpus.photos])
    among = of_photo[targets][:, None] == of_photo[None]
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for method, scores in matrices.items():
        within, whole = target_ranks(scores, targets, among), target_ranks(scores, targets)
        values[method] = {f"acc_{k}": (within < k).astype(np.float64) for k in WITHIN}
        values[method] |= {f"gallery_acc_{k}": (whole < k).astype(np.float64) for k in GALLERY}
    found = _evaluation(corpus, PerQuery(corpus.sketches, values), {})
    chance = {f"acc_{k}": float(np.minimum(k / among.sum(axis=1), 1).mean()) for k in WITHIN}
    chance |= {f"gallery_acc_{k}": min(k / len(corpus.photos), 1.0) for k in GALLERY}
    found.figures["chance"] = {ALL: chance}
    return found


def measure_groups(task: GroupedTask, matrices: Mapping[str, NDArray[np.floating]]) -> Evaluation:
    """Figures of groups of queries against one gallery: of the first page, and of the whole ranking.

    HARMONIC is the mean of two groups, where the task names two. "covering ..." is mAP of finding the photos whose
    thing has that size, with those where it has another size left out of the ranking.
    """
    relevant, queries = relevance(task.corpus), task.corpus.sketches
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for method, scores in matrices.items():
        precision, hit = first_page(scores, relevant, FIRST)
        whole = query_metrics(scores, relevant)["map_all"]
        values[method] = {"precision_10": precision, "hit_10": hit, "map_all": whole}
    groups = {name: np.array([q.label in labels for q in queries]) for name, labels in task.groups.items()}
    found = _evaluation(task.corpus, PerQuery(queries, values), groups)
    for method, of_groups in found.figures.items():
        if task.harmonic:
            first, second = (of_groups[name] for name in task.harmonic)
            of_groups[HARMONIC] = {name: _harmonic(first[name], second[name]) for name in first}
        for size, right in task.sizes.items():
            if right.any():
                # Photos that are right, but of another size, are neither found nor missed: they go behind all others.
                only = np.where(relevant & ~right, -np.inf, matrices[method])
                of_groups[f"covering {size}"] = {"map_all": float(query_metrics(only, right)["map_all"].mean())}
    return found


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


def _evaluation(corpus: Corpus, per_query: PerQuery, groups: Mapping[str, NDArray[np.bool_]]) -> Evaluation:
    rows = {ALL: np.ones(len(per_query.queries), np.bool_), **groups}
    return Evaluation(
        len(corpus.sketches),
        len(corpus.photos),
        len({picture.label for picture in corpus.sketches}),
        {name: int(chosen.sum()) for name, chosen in rows.items()},
        {
            method: {
                name: {figure: float(column[chosen].mean()) for figure, column in columns.items()}
                for name, chosen in rows.items()
            }
            for method, columns in per_query.values.items()
        },
        per_query,
    )


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0

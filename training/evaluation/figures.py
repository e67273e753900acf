"""Computes figures from scores: by category, by the photo that a sketch was drawn from, and by groups of queries."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.errors import ModelError
from sketch_search.model.metrics import first_page, query_metrics, target_ranks
from sketch_search.training.corpus import Corpus, Picture, find_drawn_photos
from sketch_search.training.tasks import LARGE_PROTOCOLS, TRAINED, UNSEEN, Task

# Single queries are resampled, or whole classes with all their queries, for statements about other classes: queries of
# one class look for the same photos.
Resampled = Literal["queries", "classes"]
RESAMPLES = 2000
LEVEL = 0.95
# Titles of figures, or of what stands before their number: precision_10 is P@10.
_TITLES = {
    "map": "mAP",
    "precision": "P",
    "gallery_acc": "all",
    "kind_before": "before",
    "median_rank": "median",
    "rand": "Rand",
    "right_number": "number",
    "cpu_ms": "CPU ms",
    "first": "first right",
    "among": "one right",
    "shown": "guesses",
    "right": "right quarter",
    "tokens": "compared there",
    "most": "most there",
    "order": "order kept",
}
# The notes on titles with a star.
ADAPTED = (
    "* mAP is interpolated, and P@k is the share of right photos among the first min(k, R), R being all right ones, as "
    "the papers' code has it"
)
ALL, HARMONIC = "all", "harmonic mean"
# The number of results visible without scrolling.
FIRST = 10
# Ranks that count as found: among the photos of the sketch's class and source, and in the whole gallery.
WITHIN, GALLERY = (1, 5, 10), (1, 10, 20)
# Searches within one kind of pictures, and across both.
WITHIN_GROUPS = ("sketches by a sketch", "photos by a photo", "photos by a sketch")
_CHUNK_ELEMENTS = 1 << 22

# The figures of each query, (q,) float64, by method and by the name of the figure.
PerQuery = dict[str, dict[str, NDArray[np.float64]]]


def title(figure: str) -> str:
    """Returns the title of a figure by its name."""
    if figure.startswith("plain_"):
        return f"plain {title(figure.removeprefix('plain_'))}"
    what, _, first = figure.rpartition("_")
    return f"{_TITLES.get(what, what)}@{first}" if first.isdigit() or first == "all" else _TITLES.get(figure, figure)


@dataclass(frozen=True)
class Interval:
    """A mean over queries, and the interval that holds LEVEL of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of some methods on a task.

    queries: the q sketches that count. groups: how many queries each has; the first is ALL. figures: means over queries
    in 0..1, by method, group and name; further groups are HARMONIC, and sizes of things.
    """

    corpus: Corpus
    queries: tuple[Picture, ...]
    per_query: PerQuery
    groups: dict[str, int]
    figures: dict[str, dict[str, dict[str, float]]]

    @staticmethod
    def of(
        corpus: Corpus, queries: tuple[Picture, ...], per_query: PerQuery, groups: Mapping[str, NDArray[np.bool_]]
    ) -> "Evaluation":
        """Averages the figures of all queries, and of groups, (q,) bool each."""
        rows = {ALL: np.ones(len(queries), np.bool_), **groups}
        figures = {
            method: {
                group: {name: float(column[chosen].mean()) for name, column in columns.items()}
                for group, chosen in rows.items()
            }
            for method, columns in per_query.items()
        }
        counts = {name: int(chosen.sum()) for name, chosen in rows.items()}
        return Evaluation(corpus, queries, per_query, counts, figures)

    @staticmethod
    def side_by_side(results: "Mapping[str, Evaluation]") -> "Evaluation":
        """Joins evaluations of one task, several with methods named "NAME: METHOD"."""
        first = next(iter(results.values()))
        if len(results) == 1:
            return first
        per_query = {f"{name}: {m}": row for name, result in results.items() for m, row in result.per_query.items()}
        figures = {f"{name}: {m}": groups for name, result in results.items() for m, groups in result.figures.items()}
        return Evaluation(first.corpus, first.queries, per_query, first.groups, figures)

    def table(self, resampled: Resampled | None = None, heading: str = "") -> str:
        """Writes all figures. resampled: those over all queries have intervals. heading: above it (the pictures)."""
        intervals, sizes = self.intervals(resampled) if resampled else {}, self._sizes()
        names = list(dict.fromkeys(name for groups in self.figures.values() for name in groups[ALL]))
        titles = [title(name) + "*" * name.startswith(("map_", "precision_")) for name in names]
        lines = [["method", "queries", *titles]]
        for method, groups in self.figures.items():
            for group, means in groups.items():
                shown = {name: f"{value:.4f}" for name, value in means.items()}
                if group == ALL:
                    interval = intervals.get(method, {})
                    shown |= {n: f"{i.value:.4f} [{i.low:.4f}, {i.high:.4f}]" for n, i in interval.items()}
                size = f" ({self.groups[group]})" if group in self.groups else ""
                cells = [shown.get(name, "") for name in names]
                lines.append([method if group == ALL else "", f"{group}{size}", *cells])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ([*map(str.ljust, line[:2], widths), *map(str.rjust, line[2:], widths[2:])] for line in lines)
        photos = f" against {sizes['photos']} photos" if sizes["photos"] else ""
        text = [heading or f"{sizes['queries']} sketches of {sizes['classes']} classes{photos}", ""]
        text += ["  ".join(cells).rstrip() for cells in padded]
        text += ["", ADAPTED] if "*" in text[2] else []
        text += ["", f"{LEVEL:.0%} intervals by {RESAMPLES} resamples of {resampled}"] if resampled else []
        return "\n".join(text)

    def differences(self, base: str) -> "Evaluation | None":
        """Subtracts the figures of the network ``base`` by the same method, query by query; None if there are none."""
        per_query: PerQuery = {}
        mark = f"{base}: "
        base_figures = {name.removeprefix(mark): of for name, of in self.per_query.items() if name.startswith(mark)}
        for method, columns in self.per_query.items():
            same = next((way for way in base_figures if method.endswith(f": {way}")), None)
            if same is not None and method != f"{base}: {same}":
                per_query[method] = {name: column - base_figures[same][name] for name, column in columns.items()}
        return Evaluation.of(self.corpus, self.queries, per_query, {}) if per_query else None

    def intervals(self, resampled: Resampled) -> dict[str, dict[str, Interval]]:
        """Computes the interval of every figure of every method, over all queries."""
        columns = np.stack([column for figures in self.per_query.values() for column in figures.values()], axis=1)
        groups = [query.label for query in self.queries] if resampled == "classes" else None
        values = iter(bootstrap(columns, groups))
        return {method: {name: next(values) for name in figures} for method, figures in self.per_query.items()}

    def json(self, resampled: Resampled) -> dict[str, object]:
        """Returns all figures and their intervals, without the figures of single queries."""
        methods = {m: {f: asdict(i) for f, i in row.items()} for m, row in self.intervals(resampled).items()}
        intervals = {"level": LEVEL, "resamples": RESAMPLES, "resampled": resampled, "methods": methods}
        figures = {"methods": self.figures, **self._sizes(), "groups": self.groups, "intervals": intervals}
        return figures | {"definitions": ADAPTED.removeprefix("* ")}

    def _sizes(self) -> dict[str, int]:
        corpus = self.corpus
        classes = {picture.label for picture in corpus.sketches}
        return {"queries": len(corpus.sketches), "photos": len(corpus.photos), "classes": len(classes)}


def measure(task: Task, matrices: Mapping[str, NDArray[np.floating]]) -> Evaluation:
    """Computes the figures of the task's protocol from scores (sketches, photos), higher is better.

    Raises ModelError if a sketch of the fine-grained protocol was drawn from none of the photos, ValueError if no
    sketch has a photo of its class.
    """
    if task.protocol in LARGE_PROTOCOLS or task.each_class:
        return _measure_groups(task, matrices)
    if task.protocol == "within":
        return _measure_within(task, matrices)
    if task.protocol == "fine-grained":
        return _measure_instances(task, matrices)
    relevant = relevance(task.corpus)
    scored = tuple(task.corpus.sketches[row] for row in np.flatnonzero(relevant.any(axis=1)))
    groups = {source: np.array([p.source == source for p in scored]) for source in {p.source for p in scored} if source}
    groups |= {name: np.array([p.label in labels for p in scored]) for name, labels in task.groups.items()}
    groups = {name: rows for name, rows in groups.items() if rows.any()}
    per_query = {method: query_metrics(matrix, relevant, plain=task.plain) for method, matrix in matrices.items()}
    return Evaluation.of(task.corpus, scored, per_query, dict(sorted(groups.items())))


def _measure_within(task: Task, matrices: Mapping[str, NDArray[np.floating]]) -> Evaluation:
    """Measures how each picture finds others of its class among those of its kind, and sketches the photos."""
    sketches, pictures = len(task.corpus.sketches), task.corpus.sketches + task.corpus.photos
    of_sketch = np.arange(len(pictures)) < sketches
    queries = np.concatenate([np.arange(len(pictures)), np.arange(sketches)])
    # First each picture looks among its own kind, then each sketch among the photos.
    alike = (of_sketch[:, None] == of_sketch[None]) & ~np.eye(len(pictures), dtype=np.bool_)
    allowed = np.concatenate([alike, np.tile(~of_sketch, (sketches, 1))])
    relevant = relevance(Corpus(pictures, pictures))[queries] & allowed
    scored = relevant.any(axis=1)
    ranked = {method: np.where(allowed, matrix[queries], -np.inf) for method, matrix in matrices.items()}
    per_query = {method: query_metrics(scores, relevant, plain=task.plain) for method, scores in ranked.items()}
    half = np.searchsorted([sketches, len(pictures)], np.arange(len(queries)), side="right")[scored]
    groups = {name: half == number for number, name in enumerate(WITHIN_GROUPS)}
    return Evaluation.of(task.corpus, tuple(pictures[row] for row in queries[scored]), per_query, groups)


def _measure_instances(task: Task, matrices: Mapping[str, NDArray[np.floating]]) -> Evaluation:
    """Measures how often the photo that a sketch was drawn from is among the k best of its class, and of all."""
    corpus = task.corpus
    targets = find_drawn_photos(corpus)
    if (targets < 0).any():
        raise ModelError(f"{corpus.sketches[int(targets.argmin())].path} was drawn from none of the photos")
    kinds: dict[tuple[str, str], int] = {}
    of_photo = np.array([kinds.setdefault((p.source, p.label), len(kinds)) for p in corpus.photos])
    among = of_photo[targets][:, None] == of_photo[None]
    per_query: PerQuery = {}
    for method, scores in matrices.items():
        within, whole = target_ranks(scores, targets, among), target_ranks(scores, targets)
        per_query[method] = {f"acc_{k}": (within < k).astype(np.float64) for k in WITHIN}
        per_query[method] |= {f"gallery_acc_{k}": (whole < k).astype(np.float64) for k in GALLERY}
    result = Evaluation.of(corpus, corpus.sketches, per_query, {})
    chance = {f"acc_{k}": float(np.minimum(k / among.sum(axis=1), 1).mean()) for k in WITHIN}
    chance |= {f"gallery_acc_{k}": min(k / len(corpus.photos), 1.0) for k in GALLERY}
    result.figures["chance"] = {ALL: chance}
    return result


def _measure_groups(task: Task, matrices: Mapping[str, NDArray[np.floating]]) -> Evaluation:
    """Measures groups of queries on the first page and on the whole ranking, and things by their size."""
    relevant, queries = relevance(task.corpus), task.corpus.sketches
    per_query: PerQuery = {}
    for method, scores in matrices.items():
        whole = query_metrics(scores, relevant, plain=True)
        shown = ("map_all", "plain_map_all") if task.plain else ("map_all",)
        per_query[method] = first_page(scores, relevant, FIRST, plain=task.plain) | {n: whole[n] for n in shown}
    groups = {name: np.array([q.label in labels for q in queries]) for name, labels in task.groups.items()}
    result = Evaluation.of(task.corpus, queries, per_query, groups)
    for method, of_groups in result.figures.items():
        if {TRAINED, UNSEEN} <= of_groups.keys():
            pairs = {n: (of_groups[TRAINED][n], of_groups[UNSEEN][n]) for n in of_groups[ALL]}
            of_groups[HARMONIC] = {n: 2 * a * b / (a + b) if a + b else 0.0 for n, (a, b) in pairs.items()}
        for size, right in task.sizes.items():
            if right.any():
                # Right photos of another size are neither found nor missed, so they go behind all others.
                only = np.where(relevant & ~right, -np.inf, matrices[method])
                of_groups[f"covering {size}"] = {"map_all": float(query_metrics(only, right)["map_all"].mean())}
    return result


def relevance(corpus: Corpus) -> NDArray[np.bool_]:
    """Returns (sketches, photos) bool: True if the photo shows the sketch's class."""
    labels = sorted({picture.label for picture in corpus.sketches})
    numbers = {label: number for number, label in enumerate(labels)}
    shown = np.zeros((len(labels), len(corpus.photos)), np.bool_)
    for column, picture in enumerate(corpus.photos):
        for label in (picture.label, *picture.also):
            if label in numbers:
                shown[numbers[label], column] = True
    return np.asarray(shown[[numbers[picture.label] for picture in corpus.sketches]])


def bootstrap(values: NDArray[np.float64], groups: Sequence[str] | None = None) -> tuple[Interval, ...]:
    """Computes percentile intervals of the means of the columns of ``values`` (q, m), from the same resampled rows.

    groups: a name for each row; groups are then drawn instead of rows, each with all its rows.
    Raises ValueError without rows, or for groups that do not fit them.
    """
    if values.ndim != 2 or not len(values) or (groups is not None and len(groups) != len(values)):
        raise ValueError(f"a bootstrap needs (rows, columns) and one group a row, not {values.shape}")
    numbers = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.bincount(numbers).astype(np.float64)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, numbers, values)
    generator = np.random.default_rng(0)
    share = np.full(len(counts), 1 / len(counts))
    means = np.empty((RESAMPLES, values.shape[1]))
    rows = max(1, _CHUNK_ELEMENTS // len(counts))
    for start in range(0, RESAMPLES, rows):
        part = means[start : start + rows]
        times = generator.multinomial(len(counts), share, size=len(part)).astype(np.float64)
        part[:] = times @ sums / (times @ counts)[:, None]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return tuple(Interval(*map(float, row)) for row in zip(values.mean(axis=0), low, high, strict=True))

"""Figures as text: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluation.categories import CategoryEvaluation
from model.evaluation.instances import InstanceEvaluation
from model.evaluation.keep_rates import KeepFigures
from model.evaluation.per_query import Difference, PerQuery, intervals
from model.evaluation.resampling import LEVEL, RESAMPLES, Interval, Resampled
from model.metrics import CategoryMetrics

_TITLES = {
    "map_all": "mAP@all",
    "map_200": "mAP@200",
    "precision_100": "P@100",
    "precision_200": "P@200",
    "acc_1": "acc@1",
    "acc_5": "acc@5",
    "acc_10": "acc@10",
    "gallery_acc_1": "all@1",
    "gallery_acc_10": "all@10",
}


@dataclass(frozen=True)
class Comparisons:
    """How certain differences of figures are.

    Attributes:
        resampled: what the intervals were resampled over.
        differences: between the methods measured.
        against: between the methods measured and those of another evaluation.
    """

    resampled: Resampled
    differences: tuple[Difference, ...]
    against: tuple[Difference, ...] = ()


def category_table(result: CategoryEvaluation, subset: Sequence[str]) -> str:
    """One line for each method, for each source of its queries, and for the classes ``subset`` if there are any."""

    def row(name: str, what: str, m: CategoryMetrics) -> str:
        values = (m.map_all, m.map_200, m.precision_100, m.precision_200)
        return f"{name:<17}{what:<22}" + "".join(f"{value:>10.4f}" for value in values)

    lines = [f"{result.queries} sketches of {result.classes} classes against {result.photos} photos", ""]
    lines.append(
        f"{'method':<17}{'queries':<22}" + "".join(f"{n:>10}" for n in ("mAP@all", "mAP@200", "P@100", "P@200"))
    )
    for method, part in result.methods.items():
        lines.append(row(method, "all", part.overall))
        lines += [row("", source, figures) for source, figures in part.by_source.items()]
        if part.subset is not None:
            lines.append(row("", "without namesake", part.subset))
    if subset and any(part.subset for part in result.methods.values()):
        lines += ["", "without a namesake in ImageNet-1k: " + ", ".join(subset)]
    return "\n".join(lines)


def instance_table(result: InstanceEvaluation) -> str:
    """One line for each method, and one for a random order."""
    lines = [
        f"{result.queries} sketches of {result.classes} classes, each looking for the photo it was drawn from",
        f"acc@k: among the photos of its class and source; all@k: among all {result.photos} photos",
        "",
        f"{'method':<17}" + "".join(f"{_TITLES[name]:>10}" for name in result.chance),
    ]
    for method, figures in [*result.figures.items(), ("chance", result.chance)]:
        lines.append(f"{method:<17}" + "".join(f"{figures[name]:>10.4f}" for name in result.chance))
    return "\n".join(lines)


def comparison_table(per_query: PerQuery, compared: Comparisons) -> str:
    """Intervals of all figures, then differences between methods, then those to the other evaluation."""
    figures = list(next(iter(per_query.values.values())))
    head = "".join(f"{_TITLES.get(name, name):>28}" for name in figures)
    lines = [f"{LEVEL:.0%} intervals by {RESAMPLES} resamples of {compared.resampled}", "", f"{'method':<34}{head}"]
    for method, row in intervals(per_query, compared.resampled).items():
        cells = (f"{i.value:.4f} [{i.low:.4f}, {i.high:.4f}]" for i in row.values())
        lines.append(f"{method:<34}" + "".join(f"{cell:>28}" for cell in cells))
    for title, differences, mark in (
        ("differences, same queries", compared.differences, ""),
        ("differences to the other evaluation, same queries", compared.against, " (other)"),
    ):
        if not differences:
            continue
        lines += ["", title]
        for first, second in dict.fromkeys((d.first, d.second) for d in differences):
            found = {d.figure: d.interval for d in differences if (d.first, d.second) == (first, second)}
            cells = (_signed(found[name]) if name in found else "" for name in figures)
            lines.append(f"{f'{first} - {second}{mark}':<34}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join(lines)


def category_json(result: CategoryEvaluation) -> dict[str, object]:
    """The figures of a category protocol, and how many pictures were measured."""
    figures = result.methods.items()
    return {
        "methods": {method: dataclasses.asdict(part.overall) for method, part in figures},
        "by_source": {
            method: {source: dataclasses.asdict(row) for source, row in part.by_source.items()}
            for method, part in figures
        },
        "without_namesake": {method: dataclasses.asdict(part.subset) for method, part in figures if part.subset},
        "queries": result.queries,
        "photos": result.photos,
        "classes": result.classes,
    }


def instance_json(result: InstanceEvaluation) -> dict[str, object]:
    """The figures of the fine-grained protocol, and how many pictures were measured."""
    return {
        "methods": result.figures,
        "chance": result.chance,
        "queries": result.queries,
        "photos": result.photos,
        "classes": result.classes,
    }


def comparison_json(per_query: PerQuery, compared: Comparisons, subset: Sequence[str] = ()) -> dict[str, object]:
    """Intervals of all figures: over all queries, by source and of the classes ``subset``; then the differences."""

    def table(part: PerQuery) -> dict[str, dict[str, dict[str, float]]]:
        found = intervals(part, compared.resampled)
        return {m: {figure: dataclasses.asdict(i) for figure, i in row.items()} for m, row in found.items()}

    def listed(differences: Sequence[Difference]) -> list[dict[str, object]]:
        return [
            {"first": d.first, "second": d.second, "figure": d.figure, **dataclasses.asdict(d.interval)}
            for d in differences
        ]

    sources = sorted({picture.source for picture in per_query.queries} - {""})
    rows_subset = np.array([picture.label in subset for picture in per_query.queries])
    return {
        "intervals": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "resampled": compared.resampled,
            "methods": table(per_query),
            "by_source": {
                s: table(per_query.rows(np.array([p.source == s for p in per_query.queries]))) for s in sources
            },
            "without_namesake": table(per_query.rows(rows_subset)) if rows_subset.any() else {},
        },
        "differences": listed(compared.differences),
        "against": listed(compared.against),
    }


def keep_table(found: Sequence[KeepFigures]) -> str:
    """One line for each setting: mAP@all of each method, then the costs."""
    methods = list(found[0].methods)
    costs = ("ms/pair", "M MAC/pair", "G MAC/photo", "KiB/photo")
    lines = [
        f"mAP@all by method; {found[0].costs.parameters / 1e6:.1f} M parameters; milliseconds as they were here",
        "",
        f"{'r_S/r_I/r_CA':<17}" + "".join(f"{name:>17}" for name in methods) + "".join(f"{n:>13}" for n in costs),
    ]
    for row in found:
        figures = "".join(f"{row.methods[method].map_all:>17.4f}" for method in methods)
        c = row.costs
        values = (row.milliseconds, c.pair_macs / 1e6, c.photo_macs / 1e9, c.photo_bytes / 1024)
        lines.append(f"{row.rates!s:<17}" + figures + "".join(f"{value:>13.3f}" for value in values))
    return "\n".join(lines)


def keep_json(found: Sequence[KeepFigures]) -> dict[str, object]:
    """All figures and costs of each setting."""
    return {
        "keep": [
            dataclasses.asdict(row.rates)
            | {"methods": {method: dataclasses.asdict(figures) for method, figures in row.methods.items()}}
            | dataclasses.asdict(row.costs)
            | {"milliseconds_a_pair": row.milliseconds}
            for row in found
        ]
    }


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"

"""The comparison for people: tables in Markdown, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.evaluation import Interval, draw_budgets
from model.papers.comparison.rows import Chosen, ComparisonRow, Peak, Point, Ranked, Retrieval

_METHODS = {"rn": "relation network", "ret": "[Ret]", "fused": "fused"}


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """Quality, the same at the peaks, and costs: a table each, with what was counted above."""
    first = rows[0].final.figures
    seen = max(row.final.at.pictures for row in rows)
    lines = [
        f"Every training sees {seen:,} pictures of {rows[0].image_size} pixels, or the last whole step before. "
        f"{first.unseen.queries:,} queries against {first.unseen.photos:,} photos of unseen classes; "
        f"{first.everything.queries:,} queries against {first.everything.photos:,} photos of everything; "
        f"acc@1 of {first.instance_queries:,} sketches (by chance {first.chance:.3f}).",
        "",
        *_quality([(row.title, row.final) for row in rows]),
    ]
    if peaks := [(row.title, row.peak) for row in rows if row.peak is not None]:
        lines += ["", "Where the validation was best before the end, that network on unseen classes alone:", ""]
        lines += _peaks(peaks)
    return "\n".join([*lines, "", *_costs(rows)])


def draw_comparison(rows: Sequence[ComparisonRow], picture: Path) -> None:
    """Draws mAP@all on validation classes over pictures seen, by each method at its best rate.

    picture: a file whose ending says the format. Raises ModelError without matplotlib.
    """
    series = {
        row.title: [(point.pictures, point.val) for point in rate.curve]
        for row in rows
        for rate in row.rates
        if rate.rate == row.final.rate
    }
    level = next((row.final.at.val for row in rows if row.final.rate is None), None)
    draw_budgets(series, level, picture)


# What a table of quality says first of a network: what it is, and what was chosen on the validation classes.
_CHOICE = ("network", "ranks by", "rate", "pictures", "validation")


def _quality(found: Sequence[tuple[str, Chosen]]) -> list[str]:
    titles = (
        *_CHOICE,
        "unseen: mAP@all, Prec@100",
        "diffused",
        "unseen in everything: mAP@all, Prec@100",
        "diffused",
        "acc@1",
    )
    lines = [_line(titles), _line(["---"] * len(titles))]
    for title, chosen in found:
        figures = chosen.figures
        cells = [
            *_choice(title, figures.method, chosen.rate, chosen.at),
            *_rankings(figures.unseen),
            *_rankings(figures.everything),
            _interval(figures.instances),
        ]
        lines.append(_line(cells))
    return lines


def _peaks(found: Sequence[tuple[str, Peak]]) -> list[str]:
    titles = (*_CHOICE, "unseen: mAP@all, Prec@100", "diffused")
    lines = [_line(titles), _line(["---"] * len(titles))]
    for title, peak in found:
        lines.append(_line([*_choice(title, peak.method, peak.rate, peak.at), *_rankings(peak.unseen)]))
    return lines


def _choice(title: str, method: str, rate: float | None, at: Point) -> list[str]:
    return [
        title,
        _METHODS[method],
        "" if rate is None else f"{rate:g}",
        f"{at.pictures:,}",
        f"{at.val:.3f}",
    ]


def _costs(rows: Sequence[ComparisonRow]) -> list[str]:
    titles = (
        "network",
        "parameters",
        "rates, and where each training ended on validation",
        "minutes a training",
        "ms a photo",
        "ms a query",
        "bytes a photo",
    )
    lines = [_line(titles), _line(["---"] * len(titles))]
    for row in rows:
        figures = row.final.figures
        minutes = sum(rate.seconds for rate in row.rates) / 60 / max(1, len(row.rates))
        cells = [
            row.title,
            f"{figures.parameters / 1e6:.1f} M",
            ", ".join(f"{rate.rate:g}: {rate.curve[-1].val:.3f}" for rate in row.rates),
            f"{minutes:.1f}" if row.rates else "",
            f"{figures.photo_ms:.1f}",
            f"{figures.query_ms:.1f}",
            f"{figures.photo_bytes:,}",
        ]
        lines.append(_line(cells))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rankings(found: Ranked) -> list[str]:
    return [_retrieval(found.plain), _retrieval(found.diffused)]


def _retrieval(found: Retrieval) -> str:
    return f"{_interval(found.map_all)}, {found.precision_100.value:.3f}"


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"

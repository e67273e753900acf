"""Training on the few photos nearest to each class's visual anchor, or farthest from it (section 4.5, Fig. 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.papers.experiments.plots import draw_lines
from model.papers.experiments.trials import ExperimentRequest, markdown
from model.papers.rows import TrainedRow, trained_row, with_interval

_ALL = "all"
_SIDES = ("nearest", "farthest")


def compare_nearest(
    request: ExperimentRequest, counts: Sequence[int], report: Callable[[str], object]
) -> tuple[TrainedRow, ...]:
    """Trains on all photos, then on so many nearest and farthest ones of each class, with all sketches each time.

    A class that has fewer photos gives all.
    """
    corpus = request.measured_pictures()
    trials: dict[str, dict[str, Any]] = {_ALL: {}} | {
        f"{side}-{count}": {"photos": {"count": count, "farthest": side == "farthest"}}
        for count in counts
        for side in _SIDES
    }
    rows = []
    for name, changes in trials.items():
        report(f"{name}:")
        rows.append(trained_row(request.run(name, changes), corpus, report))
    return tuple(rows)


def nearest_table(rows: Sequence[TrainedRow]) -> str:
    """A line for each training."""
    titles = ("photos of each class", "seed", "mAP@all", "Prec@100")
    lines = []
    for row in rows:
        figures = row.figures["ret"]
        name = row.name.replace("-", " ")
        lines.append((name, str(row.seed), with_interval(figures["map_all"]), f"{figures['precision_100'].value:.3f}"))
    return markdown(titles, lines)


def draw_nearest(rows: Sequence[TrainedRow], picture: Path) -> None:
    """Draws mAP@all over the number of photos, with that of all photos as a line."""
    values = {row.name: row.figures["ret"]["map_all"].value for row in rows}
    series = {
        side: [(float(name.split("-")[1]), value) for name, value in values.items() if name.startswith(side)]
        for side in _SIDES
    }
    draw_lines(series, "photos of each class", "mAP@all", picture, logarithmic=True, level=("all", values[_ALL]))

"""The same training several times, each with another seed (section 4.2), zero-shot or generalised (section 4.4)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from model.evaluation import new_figure
from model.papers.experiments.trials import ExperimentRequest, Measured, markdown
from model.papers.rows import TrainedRow, trained_row, with_interval

_FIGURES = {"map_all": "mAP@all", "precision_100": "Prec@100"}


def repeat(
    request: ExperimentRequest, count: int, protocol: Measured, report: Callable[[str], object]
) -> tuple[TrainedRow, ...]:
    """Trains and measures ``count`` times, with the recipe's seed and those that follow.

    For the generalised protocol the training leaves out a fifth of the photos of each class, which the gallery shows.
    """
    corpus = request.measured_pictures(protocol)
    first = request.read_recipe().seed
    rows = []
    for seed in range(first, first + count):
        name = f"{protocol}-seed-{seed}"
        report(f"{name}:")
        run = request.run(name, {"seed": seed, "hold_out": protocol == "generalised"})
        rows.append(trained_row(run, corpus, report))
    return tuple(rows)


def repeats_table(rows: Sequence[TrainedRow]) -> str:
    """A line for each training, then the mean of all and their standard deviation, the square root of the variance."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        figures = row.figures["ret"]
        lines.append((str(row.seed), with_interval(figures["map_all"]), f"{figures['precision_100'].value:.3f}"))
    values = [[row.figures["ret"][figure].value for row in rows] for figure in _FIGURES]
    lines.append(("mean", *(f"{statistics.mean(of_figure):.3f}" for of_figure in values)))
    if len(rows) > 1:
        lines.append(("standard deviation", *(f"{statistics.stdev(of_figure):.3f}" for of_figure in values)))
    return markdown(("seed", *_FIGURES.values()), lines)


def draw_repeats(rows: Sequence[TrainedRow], picture: Path) -> None:
    """Draws a point for each training, and the mean with the standard deviation on both sides of it."""
    figure = new_figure(4, 4.5)
    axes = figure.subplots()
    for place, name in enumerate(_FIGURES):
        values = [row.figures["ret"][name].value for row in rows]
        axes.plot([place] * len(values), values, "o", alpha=0.5)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        axes.errorbar([place + 0.15], [statistics.mean(values)], [spread], fmt="D", capsize=4, color="black")
    axes.set(xlim=(-0.5, len(_FIGURES) - 0.5), title=f"{len(rows)} trainings: mean, standard deviation")
    axes.set_xticks(range(len(_FIGURES)), list(_FIGURES.values()))
    axes.grid(alpha=0.3)
    figure.savefig(picture)

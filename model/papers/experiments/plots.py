"""Plots of experiments, by matplotlib (the extra ``train``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from model.evaluation import new_figure

# matplotlib's colours of a first and a second thing.
FIRST, SECOND = "C0", "C1"


def draw_lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    picture: Path,
    *,
    logarithmic: bool = False,
    level: tuple[str, float] | None = None,
) -> None:
    """Draws a line for each series.

    level: a name and a value, drawn from side to side.
    """
    figure = new_figure()
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    if level is not None:
        axes.axhline(level[1], color="black", linewidth=1, label=level[0])
    if logarithmic:
        axes.set_xscale("log")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture)

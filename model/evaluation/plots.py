"""Plots of trainings and evaluations, by matplotlib (the extra ``train``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ModelError
from model.evaluation.resampling import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.95
# A legend of more lines than this would hide some of them.
_MOST_WITHIN = 4


def draw_curve(log: Path, picture: Path) -> bool:
    """Draws losses (smoothed) and validation figures of a JSON-lines log over its steps, as PNG or SVG.

    False, and no picture, where matplotlib is not installed (the extra ``train``) or the log is empty.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if not entries:
        return False
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, figures = figure.subplots(1, 2)
    common = set.intersection(*(set(entry) for entry in entries))
    names = sorted(name for name in common - {"step", "of", "seconds"} if not name.startswith("val_"))
    steps = [entry["step"] for entry in entries]
    for name in names:
        smooth: list[float] = []
        for entry in entries:
            smooth.append(entry[name] if not smooth else SMOOTHING * smooth[-1] + (1 - SMOOTHING) * entry[name])
        losses.plot(steps, smooth, label=name)
    measured = [entry for entry in entries if any(name.startswith("val_") for name in entry)]
    for name in sorted({name for entry in measured for name in entry if name.startswith("val_")}):
        points = [(entry["step"], entry[name]) for entry in measured if name in entry]
        figures.plot(*zip(*points, strict=True), marker="o", label=name.removeprefix("val_"))
    losses.set(title="losses, smoothed", xlabel="step")
    figures.set(title="mAP@all on a share of the validation classes", xlabel="step")
    for axes in (losses, figures):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    figure.savefig(picture)
    return True


def draw_lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    picture: Path,
    *,
    title: str = "",
    marker: str = "o",
    bottom: float | None = None,
    top: float | None = None,
    logarithmic: bool = False,
    level: tuple[str, float] | None = None,
) -> None:
    """Draws a line for each series, as PNG, SVG or PDF by the picture's name.

    Args:
        x, y: labels of the axes; ``bottom`` and ``top`` are the ends of the second one, None for what fits.
        logarithmic: whether the first axis is.
        level: a name and a value, drawn from side to side.
    """
    figure = new_figure()
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=name)
    if level is not None:
        axes.axhline(level[1], color="black", linewidth=1, label=level[0])
    if logarithmic:
        axes.set_xscale("log")
    axes.set(title=title, xlabel=x, ylabel=y, ylim=(bottom, top))
    axes.grid(alpha=0.3)
    if len(series) > _MOST_WITHIN:
        figure.legend(loc="outside lower center", ncols=2)
    else:
        axes.legend()
    _save(figure, picture)


def draw_intervals(values: Mapping[str, Interval], label: str, picture: Path) -> None:
    """Draws a line for each value, with its interval, the first one on top; ``label`` is that of the axis."""
    figure = new_figure(height=0.5 * len(values) + 1)
    axes = figure.subplots()
    found = list(values.values())
    places = range(len(found), 0, -1)
    ends = [[of.value - of.low for of in found], [of.high - of.value for of in found]]
    axes.errorbar([of.value for of in found], places, xerr=ends, fmt="o", capsize=4)
    axes.set(xlabel=label)
    axes.set_yticks(places, list(values))
    axes.grid(alpha=0.3)
    _save(figure, picture)


def new_figure(width: float = 6, height: float = 4.5) -> Figure:
    """An empty figure of so many inches. Raises ModelError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModelError("a plot needs matplotlib: pip install 'sketch-search[train]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, picture: Path) -> None:
    try:
        figure.savefig(picture)
    except ValueError as error:
        raise ModelError(f"{picture} cannot be drawn ({error}); name it .png, .svg or .pdf") from error

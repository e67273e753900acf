"""Plots of results, as small SVG files. The same result gives the same bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import growth, two_stage

# Imported only where something is drawn: matplotlib comes with the extra ``train``.
if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes() -> Axes:
    """The axes of a new figure. Raises ImportError where matplotlib is not installed."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(6, 4), layout="constrained").subplots()
    made.grid(alpha=0.3)
    return made


def save(drawn: Axes, picture: Path) -> None:
    """Write as SVG. Text stays text, which is small and can be searched."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    assert isinstance(drawn.figure, Figure)
    with rc_context({"svg.hashsalt": "sketch-search", "svg.fonttype": "none"}):
        drawn.figure.savefig(picture, metadata={"Date": None})


def draw_growth(result: growth.Result, picture: Path) -> None:
    """Plot milliseconds over photos, both logarithmic, with a line that grows like the square root."""
    drawn = axes()
    for way in growth.WAYS:
        points = [(point.photos, point.milliseconds) for point in result.points if point.way == way]
        drawn.plot(*zip(*points, strict=True), marker="o", label=way)
    first = next(point for point in result.points if point.way == "clusters")
    sizes = sorted({point.photos for point in result.points})
    root = [first.milliseconds * math.sqrt(size / first.photos) for size in sizes]
    drawn.plot(sizes, root, color="grey", linestyle=":", label="square root")
    drawn.set(xlabel="photos", ylabel="ms a query, without its encoding", xscale="log", yscale="log")
    drawn.legend()
    save(drawn, picture)


def draw_recall(result: two_stage.Result, picture: Path) -> None:
    """Plot the share of the exhaustive best photos that each way to choose photos finds, over its milliseconds."""
    drawn = axes()
    by_way = {row.way: row for row in result.all_queries}
    for name, prefix in (("clusters", "clusters, nprobe "), ("[Ret]", "ret, thin ")):
        rows = {way.removeprefix(prefix): by_way[way] for way in two_stage.WAYS if way.startswith(prefix)}
        rows = {number: row for number, row in rows.items() if number.isdigit()}
        points = [(row.milliseconds, row.agreement) for row in rows.values()]
        drawn.plot(*zip(*points, strict=True), marker="o", label=f"{name}, {prefix.split()[-1]} beside the point")
        for number, point in zip(rows, points, strict=True):
            drawn.annotate(number, point, xytext=(4, -11), textcoords="offset points", fontsize=8)
    exhaustive = by_way[two_stage.EXHAUSTIVE]
    drawn.plot(exhaustive.milliseconds, exhaustive.agreement, "k*", label="exhaustive")
    drawn.set(
        xlabel="ms a query, without its encoding",
        ylabel=f"of the exhaustive best {two_stage.TOP}",
        xscale="log",
        ylim=(0, 1.05),
    )
    drawn.legend()
    save(drawn, picture)

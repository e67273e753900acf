"""How fast a training gets good, at some learning rates that stay as they are (section 4.3, Fig. 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.papers.experiments.plots import draw_lines
from model.papers.experiments.trials import ExperimentRequest, keep_row, kept_row, markdown
from model.papers.options import Glimpse
from model.papers.runs import train
from model.papers.sketch_an_anchor import read_anchor_recipe
from model.papers.training_set import training_corpora

# What the recipe's rate is multiplied by, where no rates are named.
FACTORS = (1 / 3, 1.0, 3.0)
# Measurements of a training.
_MEASURED = 20


@dataclass(frozen=True)
class RatePoint:
    """A training at one time. epochs: photos it has seen over those that there are. map_all: on validation classes."""

    step: int
    epochs: float
    map_all: float


@dataclass(frozen=True)
class RateRow:
    """The training at one rate."""

    rate: float
    seed: int
    points: tuple[RatePoint, ...]

    @property
    def best(self) -> RatePoint:
        """The first of those with the highest mAP@all."""
        return max(self.points, key=lambda point: point.map_all)


def compare_rates(
    request: ExperimentRequest, rates: Sequence[float], report: Callable[[str], object]
) -> tuple[RateRow, ...]:
    """Trains at each rate, without warm-up and decay.

    rates: none for a third of the recipe's, the recipe's, and three times that.
    """
    own = request.read_recipe().optimiser.rate
    return tuple(_row(request, rate, report) for rate in rates or [float(f"{own * factor:.3g}") for factor in FACTORS])


def rates_table(rows: Sequence[RateRow]) -> str:
    """A line for each rate: its best moment, and its last."""
    titles = ("learning rate", "seed", "best mAP@all on validation classes", "after", "last mAP@all", "after")
    lines = [
        (f"{row.rate:g}", str(row.seed), *(cell for point in (row.best, row.points[-1]) for cell in _cells(point)))
        for row in rows
    ]
    return markdown(titles, lines)


def draw_rates(rows: Sequence[RateRow], picture: Path) -> None:
    """Draws mAP@all on validation classes over the steps."""
    series = {f"{row.rate:g}": [(point.step, point.map_all) for point in row.points] for row in rows}
    draw_lines(series, "step", "mAP@all on validation classes", picture)


def _row(request: ExperimentRequest, rate: float, report: Callable[[str], object]) -> RateRow:
    name = f"rate-{rate:g}"
    steps = request.steps or request.read_recipe().steps
    run = request.run(
        name,
        {
            "evaluate_every": max(1, steps // _MEASURED),
            "optimiser": {"rate": rate, "last_rate": rate, "warmup": 1},
        },
    )
    path = request.folder / f"{name}.json"
    if (found := kept_row(RateRow, path)) is not None:
        return found
    report(f"learning rate {rate:g}:")
    recipe = read_anchor_recipe(run.recipe)
    photos = len(training_corpora(request.data, recipe).training.photos)
    # A training that goes on shows some steps again.
    part = request.folder / f"{name}-points.json"
    before = kept_row(RateRow, part)
    points = {point.step: point for point in before.points} if before else {}

    def row() -> RateRow:
        return RateRow(rate, recipe.seed, tuple(points[step] for step in sorted(points)))

    def note(glimpse: Glimpse) -> None:
        value = next(value for figure, value in glimpse.figures.items() if figure == "val_ret")
        points[glimpse.step] = RatePoint(glimpse.step, glimpse.step * recipe.batch / photos, value)
        keep_row(row(), part)

    train(dataclasses.replace(run, target=None), report, note)
    keep_row(row(), path)
    part.unlink()
    return row()


def _cells(point: RatePoint) -> tuple[str, str]:
    return f"{point.map_all:.3f}", f"{point.step:,} steps, {point.epochs:.2f} epochs"

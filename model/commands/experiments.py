"""The experiments of Sketch-an-Anchor's paper: experiment rates, spaces, costs, nearest, repeats."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from model.papers import (
    COMPARED,
    ExperimentRequest,
    compare_nearest,
    compare_rates,
    compare_spaces,
    costs_table,
    draw_costs,
    draw_nearest,
    draw_rates,
    draw_repeats,
    draw_spaces,
    measure_costs,
    nearest_table,
    rates_table,
    repeat,
    repeats_table,
    spaces_table,
)

Row = TypeVar("Row")


def run_experiment(options: argparse.Namespace) -> None:
    """experiment rates|spaces|costs|nearest|repeats [--recipe RECIPE] --backbone FILE|TIMM-TAG [--run DIR] ..."""
    _EXPERIMENTS[options.experiment](options)


def _run_rates(options: argparse.Namespace) -> None:
    _tell(options, compare_rates(_request(options), options.rates, _report), rates_table, draw_rates)


def _run_spaces(options: argparse.Namespace) -> None:
    _tell(options, compare_spaces(_request(options), options.weights, _report), spaces_table, draw_spaces)


def _run_costs(options: argparse.Namespace) -> None:
    recipes = options.recipe or [Path(name) for name in COMPARED]
    _tell(options, measure_costs(recipes, _report), costs_table, draw_costs)


def _run_nearest(options: argparse.Namespace) -> None:
    _tell(options, compare_nearest(_request(options), options.counts, _report), nearest_table, draw_nearest)


def _run_repeats(options: argparse.Namespace) -> None:
    rows = repeat(_request(options), options.count, options.protocol, _report)
    _tell(options, rows, repeats_table, draw_repeats)


def _request(options: argparse.Namespace) -> ExperimentRequest:
    return ExperimentRequest(
        recipe=options.recipe,
        backbone=options.backbone,
        folder=_folder(options),
        data=options.data,
        words=options.words,
        split=options.split,
        steps=options.steps,
    )


def _folder(options: argparse.Namespace) -> Path:
    chosen: Path | None = options.folder
    return chosen or Path("runs") / "experiments" / str(options.experiment)


def _tell(
    options: argparse.Namespace,
    rows: Sequence[Row],
    table: Callable[[Sequence[Row]], str],
    draw: Callable[[Sequence[Row], Path], None],
) -> None:
    """Prints the table, and draws the plot into the experiment's folder."""
    content: Any = rows
    print(json.dumps([dataclasses.asdict(row) for row in content]) if options.json else table(rows))
    folder = _folder(options)
    folder.mkdir(parents=True, exist_ok=True)
    draw(rows, folder / f"{options.experiment}.svg")


def _report(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


_EXPERIMENTS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "rates": _run_rates,
    "spaces": _run_spaces,
    "costs": _run_costs,
    "nearest": _run_nearest,
    "repeats": _run_repeats,
}
COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {"experiment": run_experiment}

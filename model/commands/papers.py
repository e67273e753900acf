"""Commands that train, and that repeat papers: train, ablate, words, photo-side, compare, experiment."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from model.errors import ModelError
from model.papers import (
    COMPARED,
    Budget,
    ComparisonRequest,
    ExperimentRequest,
    Outcome,
    Run,
    ScoreboardRequest,
    ablate,
    compare,
    compare_nearest,
    compare_rates,
    compare_spaces,
    comparison_table,
    draw_comparison,
    give_words,
    make_photo_side,
    measure_costs,
    repeat,
    score_checkpoints,
    train,
)

# Of a row at a budget.
_IMAGE_SIZE = 128


def run_train(options: argparse.Namespace) -> None:
    """train RECIPE --backbone FILE|TIMM-TAG [--start FILE] [--run DIR] [--until STEP] [--out FILE] [--words FILE]"""
    folder = options.folder or Path("runs") / options.recipe.stem
    target = options.out or folder / "final.safetensors"
    run = Run(
        options.recipe, options.backbone, folder, target, options.data, options.start, options.until, options.words
    )
    train(run, print)


def run_photo_side(options: argparse.Namespace) -> None:
    """photo-side ENCODER SECOND OUT.safetensors"""
    make_photo_side(options.encoder, options.second, options.target, print)


def run_words(options: argparse.Namespace) -> None:
    """words IN.safetensors --backbone FILE|TIMM-TAG [--recipe RECIPE] OUT.safetensors"""
    give_words(options.source, options.backbone, options.target, print, recipe=options.recipe, data=options.data)


def run_ablate(options: argparse.Namespace) -> None:
    """ablate [ROW...] --backbone FILE|TIMM-TAG [--method NAME] [--budget PICTURES] [--run DIR] [options]"""
    budget = None
    if options.budget:
        budget = Budget(options.budget, options.image_size or _IMAGE_SIZE)
    elif options.image_size:
        raise ModelError("--image-size needs --budget PICTURES; without them a row is trained as its recipe says")
    folder = options.folder or Path("runs") / ("ablations" if options.method == "zse" else options.method)
    outcome = ablate(
        options.row,
        options.backbone,
        folder,
        _report,
        method=options.method,
        words=options.words,
        data=options.data,
        every=options.every or (1, 1),
        budget=budget,
    )
    _tell(outcome, options, folder / "ablations.svg")


def run_compare(options: argparse.Namespace) -> None:
    """compare --backbone FILE|TIMM-TAG [--methods NAME,...] ..., or --checkpoint FILE --data DIR ..."""
    if options.checkpoint:
        if options.methods or options.words:
            raise ModelError("--methods and --words belong to --backbone, for networks that are trained")
        if not options.data:
            raise ModelError("--checkpoint needs --data DIR, such as a folder of file lists with --layout lists")
        scored = ScoreboardRequest(
            tuple(options.checkpoint),
            tuple(options.data),
            options.layout or "folders",
            options.out,
            options.every or (1, 1),
            options.device,
        )
        _tell(score_checkpoints(scored, _report), options)
        return
    if options.data or options.layout or options.every:
        raise ModelError(
            "--data, --layout and --every belong to --checkpoint; what is trained here is measured on the "
            "folder that SKETCH_SEARCH_DATA names"
        )
    request = ComparisonRequest(
        options.methods, options.backbone, options.out, options.budget, options.image_size, options.words
    )
    trained = compare(request, _report)
    outcome = Outcome(trained, comparison_table(trained), lambda picture: draw_comparison(trained, picture))
    _tell(outcome, options, options.out / "comparison.svg")


def run_experiment(options: argparse.Namespace) -> None:
    """experiment rates|spaces|costs|nearest|repeats [--recipe RECIPE] --backbone FILE|TIMM-TAG [--run DIR] ..."""
    folder = options.folder or Path("runs") / "experiments" / str(options.experiment)
    if options.experiment == "costs":
        outcome = measure_costs(options.recipe or [Path(name) for name in COMPARED], _report)
    else:
        request = ExperimentRequest(
            options.recipe, options.backbone, folder, options.data, options.words, options.split, options.steps
        )
        outcome = {
            "rates": lambda: compare_rates(request, options.rates, _report),
            "spaces": lambda: compare_spaces(request, options.weights, _report),
            "nearest": lambda: compare_nearest(request, options.counts, _report),
            "repeats": lambda: repeat(request, options.count, options.protocol, _report),
        }[options.experiment]()
    _tell(outcome, options, folder / f"{options.experiment}.svg")


def _tell(outcome: Outcome, options: argparse.Namespace, picture: Path | None = None) -> None:
    """Prints the table, and draws the plot into a file."""
    print(json.dumps([dataclasses.asdict(row) for row in outcome.rows]) if options.json else outcome.table)
    if picture is not None and outcome.draw is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        outcome.draw(picture)


def _report(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "train": run_train,
    "words": run_words,
    "photo-side": run_photo_side,
    "ablate": run_ablate,
    "compare": run_compare,
    "experiment": run_experiment,
}

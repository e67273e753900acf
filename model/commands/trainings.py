"""Commands that train: train, ablate, words."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from model.errors import ModelError
from model.papers import Budget, Run, ablate, ablation_table, draw_ablation, give_words, train

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


def run_ablate(options: argparse.Namespace) -> None:
    """ablate [ROW...] --backbone FILE|TIMM-TAG [--method NAME] [--budget PICTURES] [--run DIR] [options]"""

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr)

    every = options.every or (1, 1)
    budget = None
    if options.budget:
        budget = Budget(options.budget, options.image_size or _IMAGE_SIZE)
    elif options.image_size:
        raise ModelError("--image-size needs --budget PICTURES; without them a row is trained as its recipe says")
    folder = options.folder or Path("runs") / ("ablations" if options.method == "zse" else options.method)
    rows = ablate(
        options.row,
        options.backbone,
        folder,
        report,
        method=options.method,
        words=options.words,
        data=options.data,
        every=every,
        budget=budget,
    )
    print(json.dumps([dataclasses.asdict(row) for row in rows]) if options.json else ablation_table(rows))
    draw_ablation(rows, folder / "ablations.svg")


def run_words(options: argparse.Namespace) -> None:
    """words IN.safetensors --backbone FILE|TIMM-TAG [--recipe RECIPE] OUT.safetensors"""
    give_words(options.source, options.backbone, options.target, print, recipe=options.recipe, data=options.data)


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "train": run_train,
    "ablate": run_ablate,
    "words": run_words,
}

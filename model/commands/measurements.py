"""Commands that measure a checkpoint: evaluate, composites."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from model.checkpoint import default_checkpoint
from model.commands.options import add_data, add_every, add_json, add_weights, chosen_weights
from model.datasets import LAYOUTS, PROTOCOLS, SPLITS, STANDARD_SPLITS, read_class_folders, read_protocol
from model.evaluation import (
    CHANCE,
    COMPOSITES,
    RESAMPLED,
    EvaluationRequest,
    measure_composites,
    run_evaluation,
)
from model.matcher import load
from model.network import METHODS
from model.terminal import a_path

if TYPE_CHECKING:
    from model.commands.options import Commands

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_commands(commands: Commands) -> None:
    """Adds the parsers of this module's commands; each calls its ``run_`` function."""
    _add_evaluate(commands)

    command = commands.add_parser("composites", help="measure whether matching patches point at the thing drawn")
    add_weights(command)
    command.add_argument("--split", choices=("val", "unseen", "train"), default="val", help="classes (default: val)")
    command.add_argument("--count", type=int, default=COMPOSITES, help=f"canvases (default: {COMPOSITES})")
    command.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    add_json(command)
    add_data(command)
    command.set_defaults(run=run_composites)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure how well a checkpoint retrieves",
        usage="%(prog)s [--weights FILE] [--split NAME | --data DIR] [options]",
        epilog="example: %(prog)s --split unseen --intervals queries --csv figures.csv",
    )
    add_weights(command)
    command.add_argument("--backbone", metavar="FILE|TIMM-TAG", help="an untrained ViT: alone, or beside --weights")
    group = command.add_argument_group("what is measured")
    group.add_argument("--protocol", choices=PROTOCOLS, default="zero-shot", metavar="NAME", help=_listed(PROTOCOLS))
    group.add_argument(
        "--split", choices=SPLITS, metavar="NAME", help=f"{_listed(SPLITS)} (default: val, or all of --data)"
    )
    group.add_argument(
        "--trained-on",
        metavar="NAME",
        help="cross-data-set: sketchy (default), tuberlin or quickdraw; with --data: "
        f"{' or '.join(STANDARD_SPLITS[:1])} and so on; generalised, fresh, everything: parts such as train+val",
    )
    add_data(group)
    group.add_argument(
        "--layout", choices=LAYOUTS, default="folders", metavar="NAME", help=f"--data: {_listed(LAYOUTS)}"
    )
    add_every(group)
    methods = f"{_listed(METHODS)} (default: all)"
    group.add_argument("--method", action="append", choices=METHODS, metavar="NAME", help=methods)
    group.add_argument(
        "--by-class", action="store_true", help="figures of each class by itself, with its first 10 results"
    )
    group.add_argument("--visual", action="store_true", help="also score by the mean visual token, as row vis")
    group.add_argument("--keep", metavar="R,R,...", help="compare keep rates: r, r_S/r_I or r_S/r_I/r_CA")
    group = command.add_argument_group("where it is computed")
    group.add_argument("--device", default="cpu", help="default: cpu")
    group.add_argument("--dtype", choices=DTYPES, default="auto", metavar="NAME", help=_listed(DTYPES))
    group = command.add_argument_group("what comes out")
    add_json(group)
    intervals = "95%% intervals by resampling queries or classes"
    group.add_argument("--intervals", choices=RESAMPLED, metavar="NAME", help=intervals)
    group.add_argument("--csv", type=a_path, metavar="FILE", help="write the figures of each query")
    group.add_argument("--against", type=a_path, metavar="FILE.csv", help="compare with what --csv wrote elsewhere")
    group.add_argument("--plot", type=a_path, metavar="FILE", help="draw precision over recall, or the keep rates")
    command.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    """evaluate [--weights FILE] [--backbone FILE] [--protocol NAME] [--split NAME | --data DIR] [--json] ..."""
    request = EvaluationRequest(
        # Where a backbone is named, the environment's checkpoint is not measured, too.
        weights=options.weights if options.backbone else chosen_weights(options.weights),
        backbone=options.backbone,
        protocol=options.protocol,
        split=options.split,
        trained_on=options.trained_on,
        data=options.data,
        layout=options.layout,
        by_class=options.by_class,
        every=options.every,
        methods=options.method,
        visual=options.visual,
        device=options.device,
        dtype=options.dtype,
        json=options.json,
        intervals=options.intervals,
        csv=options.csv,
        against=options.against,
        keep=options.keep,
        plot=options.plot,
    )
    run_evaluation(request, print)


def run_composites(options: argparse.Namespace) -> None:
    """composites [--weights FILE] [--split NAME | --data DIR] [--count N] [--seed N] [--json]"""
    matcher = load(default_checkpoint(chosen_weights(options.weights)), dtype=torch.float32)
    corpus = read_protocol(options.split) if options.data is None else read_class_folders(options.data)
    with tqdm(desc="explaining", unit="composite", total=options.count, disable=None) as bar:
        result = measure_composites(matcher, corpus, options.count, options.seed, lambda _: bar.update())
    if options.json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(f"{result.composites} composites of {result.classes} classes; by chance {CHANCE:.3f}")
    for name, interval in (
        ("best matches in the right quarter", result.right),
        ("compared tokens in the right quarter", result.tokens),
        ("composites most matches of which are there", result.most),
    ):
        print(f"{name:<44}{interval.value:.3f}  (95%: {interval.low:.3f} to {interval.high:.3f})")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)

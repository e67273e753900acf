"""Commands that train: train, ablate."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.commands.options import add_backbone, add_data, add_every, add_json
from model.terminal import a_path
from model.training import RECIPES, Run, ablate, ablation_table, train

if TYPE_CHECKING:
    from model.commands.options import Commands


def add_commands(commands: Commands) -> None:
    """Adds the parsers of this module's commands; each calls its ``run_`` function."""
    command = commands.add_parser(
        "train",
        help="train a network, or continue a training",
        epilog="example: %(prog)s default --backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k --until 100",
    )
    command.add_argument(
        "recipe",
        type=a_path,
        metavar="RECIPE",
        help=f"a TOML file, or the name of one in {RECIPES.name}/ of this package, such as default",
    )
    add_backbone(command, "pretrained ViT to start from: a safetensors file or a timm tag")
    command.add_argument(
        "--start",
        type=a_path,
        metavar="FILE",
        help="checkpoint to start from instead; the backbone stays the teacher",
    )
    command.add_argument("--run", type=a_path, dest="folder", metavar="DIR", help="default: runs/NAME-OF-RECIPE")
    command.add_argument("--until", type=int, metavar="STEP", help="stop after this step; the next call continues")
    command.add_argument("--out", type=a_path, metavar="OUT.safetensors", help="default: DIR/final.safetensors")
    add_data(command)
    command.set_defaults(run=run_train)

    command = commands.add_parser("ablate", help="train and measure the table of ablations and baselines")
    command.add_argument("row", nargs="*", metavar="ROW", help="recipes of recipes/ablations (default: all)")
    add_backbone(command, "pretrained ViT that all rows start from")
    command.add_argument(
        "--run",
        type=a_path,
        dest="folder",
        metavar="DIR",
        default=Path("runs/ablations"),
        help="default: runs/ablations",
    )
    add_every(command)
    add_json(command)
    add_data(command)
    command.set_defaults(run=run_ablate)


def run_train(options: argparse.Namespace) -> None:
    """train RECIPE --backbone FILE|TIMM-TAG [--start FILE] [--run DIR] [--until STEP] [--out OUT.safetensors]"""
    folder = options.folder or Path("runs") / options.recipe.stem
    target = options.out or folder / "final.safetensors"
    run = Run(options.recipe, options.backbone, folder, target, options.data, options.start, options.until)
    train(run, print)


def run_ablate(options: argparse.Namespace) -> None:
    """ablate [ROW...] --backbone FILE|TIMM-TAG [--run DIR] [--every S,P] [--json]"""

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr)

    every = options.every or (1, 1)
    rows = ablate(options.row, options.backbone, options.folder, report, data=options.data, every=every)
    print(json.dumps([dataclasses.asdict(row) for row in rows]) if options.json else ablation_table(rows))

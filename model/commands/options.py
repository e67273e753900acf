"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from model.terminal import Parser, a_path

if TYPE_CHECKING:
    # argparse has no public names for these.
    Commands: TypeAlias = argparse._SubParsersAction[Parser]
    Options: TypeAlias = argparse._ActionsContainer


def add_backbone(command: argparse.ArgumentParser, purpose: str) -> None:
    """--backbone, which must be given."""
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help=purpose)


def add_data(command: Options) -> None:
    """--data"""
    command.add_argument(
        "--data",
        type=a_path,
        metavar="DIR",
        help="sketch/<class>/* and photo/<class>/* (default: the folder SKETCH_SEARCH_DATA names)",
    )


def add_every(command: Options) -> None:
    """--every"""
    command.add_argument("--every", type=_every, metavar="S,P", help="use every S-th sketch and every P-th photo only")


def add_json(command: Options) -> None:
    """--json"""
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")


def add_weights(command: argparse.ArgumentParser) -> None:
    """--weights"""
    command.add_argument("--weights", type=a_path, metavar="FILE", help="checkpoint (default: the embedded one)")


def chosen_weights(weights: Path | None) -> Path | str | None:
    """The checkpoint named by the option, else by SBIR_WEIGHTS; None where neither names one."""
    return weights or os.environ.get("SBIR_WEIGHTS") or None


def _every(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"two numbers from 1 on with a comma between, not {text!r}")
    return int(first), int(second)

"""Calls the command that was named."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping

from indexer.commands.builds import run_add, run_build
from indexer.commands.care import run_compact, run_info, run_verify
from indexer.commands.removals import run_remove
from indexer.commands.tables import sample_lines
from indexer.samples import write_samples
from model.terminal import printable


def run_samples(options: argparse.Namespace) -> int:
    """samples DIR"""
    print(*map(printable, sample_lines(write_samples(options.folder))), sep="\n")
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "build": run_build,
    "add": run_add,
    "remove": run_remove,
    "compact": run_compact,
    "info": run_info,
    "verify": run_verify,
    "samples": run_samples,
}


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name. Returns its exit code."""
    # Pillow's warnings about a picture are not printed: the report says what is wrong with it.
    warnings.filterwarnings("ignore", module=r"PIL\b")
    return COMMANDS[options.command](options)

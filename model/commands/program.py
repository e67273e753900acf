"""The program itself: its help, and what happens to errors."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Sequence

from model.commands import checkpoints, measurements, trainings
from model.terminal import Parser, run_program

EXAMPLES = """\
examples:
  {prog} info
      what the embedded checkpoint is: size, methods, tokens, where it is from
  {prog} evaluate --data FOLDER
      figures of it on FOLDER/sketch/<class>/* against FOLDER/photo/<class>/*
  {prog} fetch --list
      public checkpoints and backbones that can be downloaded
  {prog} train default --backbone FILE
      train by the recipe of that name, on the data of SKETCH_SEARCH_DATA

{prog} COMMAND --help shows the options of a command.
SBIR_WEIGHTS names the checkpoint where a command is not given one.
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m model") -> int:
    """Run one command.

    Args:
        arguments: the command and its options; None for those of this process.
        prog: what help calls the program.

    Returns:
        The exit code: 0, or what ``run_program`` makes of an error.
    """

    def work() -> int:
        options = parser(prog).parse_args(arguments)
        options.run(options)
        return 0

    return run_program(work, stopped="stopped; the same command continues a training from its last saved state")


def parser(prog: str = "python -m model") -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(
        prog=prog,
        description="Make, train, measure and inspect checkpoints.",
        epilog=EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"sketch-search {_version()}")
    commands = top.add_subparsers(required=True, title="commands", metavar="COMMAND")
    checkpoints.add_commands(commands)
    trainings.add_commands(commands)
    measurements.add_commands(commands)
    return top


def _version() -> str:
    try:
        return importlib.metadata.version("sketch-search")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

"""The program itself: its help, and what happens to errors. Nothing slow is imported before its help is answered."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from model.terminal import Parser, VersionAction, importing, run_program

# The commands by the module that has them, with what the program's help says of each.
FAMILIES = {
    "checkpoints": {
        "info": "show what a checkpoint is",
        "fetch": "download a public checkpoint or backbone, or list them",
        "convert": "turn a released ZSE-SBIR .pth file into a checkpoint",
        "init": "make an untrained checkpoint from a pretrained ViT",
    },
    "trainings": {
        "train": "train a network, or continue a training",
        "ablate": "train and measure the table of ablations and baselines",
    },
    "measurements": {
        "evaluate": "measure how well a checkpoint retrieves",
        "composites": "measure whether matching patches point at the thing drawn",
    },
}
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
        prog: what help calls the program, and what sentences tell the user to run.

    Returns:
        The exit code: 0, or what ``run_program`` makes of an error.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)

    def work() -> int:
        options = parser(prog, given).parse_args(given)
        options.run(options)
        return 0

    return run_program(
        work, prog=prog, stopped="stopped; the same command continues a training from its last saved state"
    )


def parser(prog: str = "python -m model", given: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The command line.

    Args:
        given: what is to be parsed. Only the modules of the command that it names are imported, and only their commands
            have options; None: all have them.
    """
    top = Parser(
        prog=prog,
        description="Make, train, measure and inspect checkpoints.",
        epilog=EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=VersionAction)
    commands = top.add_subparsers(required=True, title="commands", metavar="COMMAND")
    named = next((word for word in given if not word.startswith("-")), None) if given is not None else None
    for family, purposes in FAMILIES.items():
        if given is None or named in purposes:
            with importing():
                module = importlib.import_module(f"model.commands.{family}")
            module.add_commands(commands)
        else:
            for name, purpose in purposes.items():
                commands.add_parser(name, help=purpose)
    return top

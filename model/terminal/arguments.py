"""Command lines: options are written in full, and a path is checked as it is read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from model.terminal.paths import HomeUnknown, expanded
from model.terminal.text import printable
from model.terminal.version import VersionAction


class Parser(argparse.ArgumentParser):
    """A command line without abbreviated options: today's abbreviation of one may be tomorrow's of two."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """End the program with code 2 and the message, which may repeat what stood on the command line."""
        super().error(printable(message))


# Where commands are added; argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


def program_parser(prog: str, description: str, examples: str) -> tuple[Parser, Subparsers]:
    """The command line of a program with commands, and the place to add these to; ``command`` is the name of one.

    Args:
        prog: what the program calls itself. examples: end its help; "{prog}" in them stands for ``prog``.
    """
    top = Parser(
        prog=prog,
        description=description,
        epilog=examples.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=VersionAction)
    return top, top.add_subparsers(dest="command", required=True, title="commands", metavar="COMMAND")


def a_path(text: str) -> Path:
    """A path on the command line.

    Raises:
        ArgumentTypeError: it is empty, as a shell's variable that is not set, and would mean the current folder; or it
            begins with the name of a user whom nobody knows.
    """
    if not text:
        raise argparse.ArgumentTypeError("a path is missing: '' names nothing; write . for the current folder")
    try:
        path = expanded(text)
    except HomeUnknown as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    # Of ./~name is left ~name, which would be taken for a home folder once more.
    return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path

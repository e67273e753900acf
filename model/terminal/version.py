"""The version of this program."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def installed_version() -> str:
    """The version that pip installed; "not installed" where the program runs from a folder alone."""
    # Imported late: it takes longer than all else that a help needs.
    from importlib import metadata

    try:
        return metadata.version("sketch-search")
    except metadata.PackageNotFoundError:
        return "not installed"


class VersionAction(argparse.Action):
    """``--version``: says the version, which is looked up only then, and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help="show the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Say it, and end with code 0."""
        print(f"sketch-search {installed_version()}")
        parser.exit()

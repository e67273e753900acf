"""The name and the version of this program."""

from __future__ import annotations

import importlib.metadata

PROGRAM = "sketch-search"


def installed_version() -> str:
    """The version that pip installed; "not installed" where the program runs from a folder alone."""
    try:
        return importlib.metadata.version(PROGRAM)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

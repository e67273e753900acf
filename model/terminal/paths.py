"""Paths as people write them: "~" is their home folder."""

from __future__ import annotations

import os
from pathlib import Path

from model.terminal.refusal import Refusal


class HomeUnknown(Refusal, OSError):
    """A path begins with "~", and nobody has such a home folder here."""


def resolved(path: Path) -> Path:
    """The path without symbolic links, as far as they lead somewhere. ``Path.resolve`` fails at a link to itself."""
    return Path(os.path.realpath(path))


def expanded(path: str | Path) -> Path:
    """The path, with the home folder in the place of "~" or "~NAME".

    Raises:
        HomeUnknown: there is no user of that name; or for "~" alone, HOME is not set and the user has no entry in the
            system's list of users.
    """
    full = os.path.expanduser(path)
    if full.startswith("~"):
        raise HomeUnknown(
            f"{path}: there is no home folder {Path(path).parts[0]}; write the whole path, or set HOME to your folder."
        )
    return Path(full)

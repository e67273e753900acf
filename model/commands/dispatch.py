"""Finds what runs the command that was named."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def command(name: str) -> Callable[[argparse.Namespace], None]:
    """What runs the command of that name. Only the module that has it is imported, with all that this one needs."""
    if name in ("train", "ablate", "words", "photo-side", "compare", "experiment"):
        from model.commands import papers

        return papers.COMMANDS[name]
    if name in ("evaluate", "composites", "guesses", "folders"):
        from model.commands import measurements

        return measurements.COMMANDS[name]
    from model.commands import checkpoints

    return checkpoints.COMMANDS[name]

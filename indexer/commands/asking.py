"""Questions to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from indexer.errors import BadInvocation
from model.terminal import printable

# What takes more than one in so many files out of the index is asked about.
MUCH = 10


def ask(question: str, lines: Sequence[str] | None, alone: str) -> bool:
    """Whether the person agrees.

    Args:
        lines: are printed before the question. alone: what to say where nobody can be asked.

    Raises:
        BadInvocation: nobody can be asked.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise BadInvocation(alone)
    print(*map(printable, lines or ()), f"{printable(question)} [y/N] ", sep="\n", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")

"""What a build leaves out, told on standard error."""

from __future__ import annotations

import sys

from indexer.building import BuildReport
from indexer.commands.tables import unlisted_lines
from indexer.distributed import ShardsReport
from model.terminal import printable

# The exit code of a build that had to leave out folders.
SOME_UNREAD = 3


def tell_unlisted(report: BuildReport | ShardsReport) -> int:
    """Say on standard error which folders could not be read. Returns the exit code."""
    for line in unlisted_lines(report):
        print(printable(f"error: {line}"), file=sys.stderr, flush=True)
    return SOME_UNREAD if report.unlisted else 0

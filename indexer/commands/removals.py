"""The command that takes photos out of the index: remove."""

from __future__ import annotations

import argparse
import sys

from indexer.commands.options import index_of, print_unless_quiet
from indexer.commands.tables import plan_lines, remove_lines
from indexer.errors import BadInvocation
from indexer.upkeep import RemovalPlan, plan_removal, remove
from model.terminal import printable

# A removal of more than one in so many files is asked about.
_MUCH = 10


def run_remove(options: argparse.Namespace) -> int:
    """remove [PATH...] [--id N]... [--dry-run] [--yes]"""
    if not options.targets and not options.ids:
        raise BadInvocation("name what to remove: the path of a file or folder, or a photo by --id N.")
    index = index_of(options)
    plan = plan_removal(options.targets, index, ids=options.ids)
    if options.dry_run:
        print(*map(printable, plan_lines(plan)), sep="\n")
        print(f"nothing has changed; this would remove {plan.files} of {plan.of} files.")
        return 0
    if plan.files * _MUCH > plan.of and not options.yes:
        _ask(plan)
    print_unless_quiet(options, remove_lines(plan, remove(options.targets, index, ids=options.ids)))
    return 0


def _ask(plan: RemovalPlan) -> None:
    """Have the person agree. Raises BadInvocation where nobody can be asked, or does not agree."""
    sentence = f"this removes {plan.files} of {plan.of} files, more than a tenth of the gallery"
    if sys.stdin is None or not sys.stdin.isatty():
        raise BadInvocation(f"{sentence}; look at what that is with --dry-run, and repeat it with --yes.")
    print(
        *map(printable, plan_lines(plan)), f"{sentence}. Go on? [y/N] ", sep="\n", end="", file=sys.stderr, flush=True
    )
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadInvocation("nothing was removed.")

"""The command that takes photos out of the index: remove."""

from __future__ import annotations

import argparse

from indexer.commands.asking import MUCH, ask
from indexer.commands.options import index_of, print_unless_quiet
from indexer.commands.tables import plan_lines, remove_lines
from indexer.errors import BadInvocation
from indexer.upkeep import RemovalPlan, plan_removal, remove
from model.terminal import printable


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
    if plan.files * MUCH > plan.of and not options.yes:
        _ask(plan)
    print_unless_quiet(options, remove_lines(plan, remove(options.targets, index, ids=options.ids)))
    return 0


def _ask(plan: RemovalPlan) -> None:
    """Have the person agree. Raises BadInvocation where nobody can be asked, or does not agree."""
    sentence = f"this removes {plan.files} of {plan.of} files, more than a tenth of the gallery"
    alone = f"{sentence}; look at what that is with --dry-run, and repeat it with --yes."
    if not ask(f"{sentence}. Go on?", plan_lines(plan), alone):
        raise BadInvocation("nothing was removed.")

"""The commands of `sketch-search index`, also run by `python -m indexer`: those of the module ``build``."""

from collections.abc import Iterable, Sequence

import click

from sketch_search.model.command_line import CommandGroup, examples, run

_EXAMPLES = examples(
    "sketch-search index ~/Pictures          once, and again to update",
    "sketch-search index build --watch       keep running, and index changes",
    'sketch-search index remove "holiday/blurred.jpg"',
    "sketch-search index info",
)


def _commands() -> Iterable[click.Command]:
    from sketch_search.indexer.commands import build as commands

    return (commands.build, commands.add, commands.remove, commands.info, commands.verify, commands.samples)


index = CommandGroup(
    "index",
    load=_commands,
    default="build",
    help="Build, inspect and maintain an index of photos. FOLDERs without a command are indexed.",
    subcommand_metavar="[FOLDER ...] | COMMAND ...",
    epilog=_EXAMPLES,
)


def main(arguments: Sequence[str] | None = None, prog: str = "sketch-search index") -> int:
    """Runs one command. Returns 0, 1 for problems found, 3 for unread folders, or as ``run_program``."""
    return run(index, arguments, prog)

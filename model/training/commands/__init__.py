"""Declares the commands of `sketch-search model`, also run by `python -m model`."""

from collections.abc import Iterable, Sequence

import click

from sketch_search.model.command_line import CommandGroup, examples, run

_EXAMPLES = examples(
    "sketch-search model evaluate --data FOLDER",
    "    measure it on FOLDER/sketch/<class>/* against FOLDER/photo/<class>/*",
    "sketch-search model train my.toml --data FOLDER --start FILE --backbone FILE",
    "    continue from a checkpoint with your own pictures",
)


def _commands() -> Iterable[click.Command]:
    from sketch_search.model.training.commands import illustrations, measurements, trainings

    return (*trainings.COMMANDS, *measurements.COMMANDS, *illustrations.COMMANDS)


model = CommandGroup("model", load=_commands, help="Make, train, measure and inspect checkpoints.", epilog=_EXAMPLES)


def main(arguments: Sequence[str] | None = None, prog: str = "sketch-search model") -> int:
    """Runs one command, and returns its exit code."""
    return run(model, arguments, prog)

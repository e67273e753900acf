"""Declares the commands of `python -m training`."""

from collections.abc import Iterable, Sequence

import click

from sketch_search.model.command_line import CommandGroup, examples, run

_EXAMPLES = examples(
    "python -m training evaluate --data FOLDER",
    "    measure it on FOLDER/sketch/<class>/* against FOLDER/photo/<class>/*",
    "python -m training train my.toml --data FOLDER --start FILE --backbone FILE",
    "    continue from a checkpoint with your own pictures",
)


def _commands() -> Iterable[click.Command]:
    from sketch_search.training.commands import illustrations, measurements, trainings

    return (*trainings.COMMANDS, *measurements.COMMANDS, *illustrations.COMMANDS)


training = CommandGroup("training", load=_commands, help="Make, train and measure checkpoints.", epilog=_EXAMPLES)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m training") -> int:
    """Runs one command, and returns its exit code."""
    return run(training, arguments, prog)

"""Declares the commands of `sketch-search model`, which `python -m model` is, too."""

from collections.abc import Iterable, Sequence

import click

from model.command_line import Group, examples, run

_EXAMPLES = examples(
    "sketch-search model info",
    "    what the embedded checkpoint is: size, methods, tokens, where it is from",
    "sketch-search model evaluate --data FOLDER",
    "    figures of it on FOLDER/sketch/<class>/* against FOLDER/photo/<class>/*",
    "sketch-search model train my.toml --data FOLDER --start FILE --backbone FILE",
    "    go on from a checkpoint with pictures of your own",
)


def _commands() -> Iterable[click.Command]:
    from model.commands import checkpoints, illustrations, measurements, trainings

    return (*checkpoints.COMMANDS, *trainings.COMMANDS, *measurements.COMMANDS, *illustrations.COMMANDS)


model = Group("model", load=_commands, help="Make, train, measure and inspect checkpoints.", epilog=_EXAMPLES)


def main(arguments: Sequence[str] | None = None, prog: str = "sketch-search model") -> int:
    """Runs one command, and returns its exit code."""
    return run(model, arguments, prog)

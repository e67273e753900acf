"""What the command lines of the programs take, without running anything."""

from collections.abc import Iterator, Sequence

import click
import pytest


def parse(command: click.Command, arguments: Sequence[str]) -> click.Context:
    """Returns the context of the command that the arguments name, with its parameters. Raises click.UsageError."""
    reached: list[click.Context] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Command, "invoke", lambda _, context: reached.append(context))
        with command.make_context("program", list(arguments)) as context:
            command.invoke(context)
    return reached[-1]


def commands_of(command: click.Command) -> dict[str, click.Command]:
    """Returns the commands of a group by name; none of a command that is no group."""
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: one for name, one in found.items() if one is not None}


def all_commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    for below in commands_of(command).values():
        yield from all_commands(below)


def options_of(command: click.Command) -> set[str]:
    return {option for param in command.get_params(click.Context(command)) for option in param.opts if option[0] == "-"}

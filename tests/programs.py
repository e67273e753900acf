"""Programs that tests start as users do: none runs for longer than a test may wait for it."""

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import click
import pytest

from tests.patience import PATIENCE

#: Seconds for a program that does a lot, such as a whole measurement; below the limit of a whole test, too.
LONG = 540


def run_python(
    *arguments: str, folder: Path | None = None, environment: Mapping[str, str] | None = None, seconds: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run this Python with these arguments to its end, and keep what it prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)


@contextmanager
def started_python(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    errors: IO[str] | int | None = None,
    output: IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A program that runs beside the block, its output and input in pipes; it is told to stop when the block ends."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(
        command,
        env=os.environ if environment is None else environment,
        stdin=subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    # The outer block closes the pipes, and waits for what has been killed.
    with process:
        try:
            yield process
            process.terminate()
            process.wait(PATIENCE)
        finally:
            process.kill()


def run_until(
    command: Sequence[str],
    said: Callable[[str], bool],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[int, str]:
    """Runs a command until it prints a line that ``said`` accepts, then stops it as Ctrl-C does: exit code, output."""
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if said(line):
                    process.send_signal(signal.SIGINT)
            return process.wait(PATIENCE), "".join(lines)
        finally:
            process.kill()


def family(process: int) -> list[int]:
    """Returns the ids of a process and of all that it has started, on Linux."""
    children = defaultdict[int, list[int]](list)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            children[int((folder / "stat").read_text().rpartition(")")[2].split()[1])].append(int(folder.name))
    found = [process]
    for one in found:
        found += children[one]
    return found


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

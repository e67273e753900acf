"""Starts programs as people do, ends them with what they started, and waits for states."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import IO, Any

import click
import pytest

#: Seconds. Below the limit of a whole test, so that the test says itself what did not come.
PATIENCE = 240
# Seconds from one look to the next, at first and at most. Without them a waiting test takes the processor from what it
# waits for.
_FIRST_MOMENT, _MOMENT = 0.002, 0.05
#: Seconds after which a test marked `soak` is ended; pyproject.toml has those for all others.
SOAK_TIMEOUT = 2 * 60 * 60


def wait_until(holds: Callable[[], object], otherwise: str) -> None:
    """Ask again and again until the answer is true. AssertionError, with ``otherwise``: it was not in time."""
    end, moment = time.monotonic() + PATIENCE, _FIRST_MOMENT
    while not holds():
        assert time.monotonic() < end, f"{otherwise}, after {PATIENCE} seconds"
        time.sleep(moment)
        moment = min(2 * moment, _MOMENT)


def wait_for(event: threading.Event, otherwise: str) -> None:
    """Wait until ``event`` is set. AssertionError, with ``otherwise``: it was not in time."""
    assert event.wait(PATIENCE), f"{otherwise}, after {PATIENCE} seconds"


def join(thread: threading.Thread) -> None:
    thread.join(PATIENCE)
    assert not thread.is_alive(), f"the thread {thread.name} has not ended, after {PATIENCE} seconds"


def forget_syncs(patch: pytest.MonkeyPatch) -> None:
    """Stops this process from waiting until its writes are on the disk, which can take most of a test's time.

    Tests end programs at any moment, but never the machine: what a program has written is there for all others at once,
    synced or not.
    """
    connect = sqlite3.connect

    @wraps(connect)
    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **options)
        # Whoever reads a damaged database meets the error.
        with suppress(sqlite3.DatabaseError):
            database.execute("PRAGMA synchronous = OFF")
        return database

    patch.setattr(os, "fsync", lambda file: None)
    patch.setattr(sqlite3, "connect", connected)


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


def peak(process: int) -> int:
    """The most memory that a process has had, in MiB."""
    (line,) = (one for one in Path(f"/proc/{process}/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


def parse(command: click.Command, arguments: Sequence[str]) -> click.Context:
    """Returns the context of the command that the arguments name, with its parameters. Raises click.UsageError."""
    reached: list[click.Context] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Command, "invoke", lambda _, context: reached.append(context))
        with command.make_context("program", list(arguments)) as context:
            command.invoke(context)
    return reached[-1]


def commands_of(command: click.Command) -> dict[str, click.Command]:
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

"""Waiting for a state: as long as a busy machine may need for it, but not for ever.

Nothing here waits for time to pass: between two looks for a state there is only a moment, in which others get the
processor. What a test waits for comes within seconds; on a machine that is busy with other things it may take many
times as long. What does not come at all fails the test in words.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

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
    """Wait until a thread has ended. AssertionError: it was not in time."""
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

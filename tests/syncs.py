"""Writing without waiting for the disk."""

import os
import sqlite3
from contextlib import suppress
from functools import wraps
from typing import Any

import pytest


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

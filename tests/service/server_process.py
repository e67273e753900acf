"""The server as a process of its own, as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.settings import Settings


@contextmanager
def running(settings: Settings, log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m service`` on a free port, its log written to ``log``; ended, and waited for, with the block."""
    place = {"SBIR_INDEX": str(settings.index), "SBIR_WEIGHTS": str(settings.weights), "SBIR_PORT": "0"}
    command = [sys.executable, "-m", "service"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **place, **environment},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def address(process: subprocess.Popen[str]) -> str:
    """The last word of the line it prints next."""
    assert process.stdout is not None
    return process.stdout.readline().split()[-1]

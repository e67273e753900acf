"""Commands that serve until they are stopped, run as a user runs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.patience import PATIENCE

SERVICE = (sys.executable, "-m", "service")


def run_until(
    command: Sequence[str],
    said: Callable[[str], bool],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[int, str]:
    """Runs a command until it prints a line that ``said`` accepts, then stops it as Ctrl-C does: exit code, output."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SBIR_")}
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**variables, **(environment or {})},
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

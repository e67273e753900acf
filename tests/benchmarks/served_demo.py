"""The demo's server, as a program of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def demo_sketches(folder: Path) -> tuple[bytes, ...]:
    """The sketches that the demo in this folder has drawn: those of its sample gallery, or those for other photos."""
    drawn = sorted(folder.glob("samples/sketches/**/*.png")) or sorted(folder.glob("*.png"))
    return tuple(file.read_bytes() for file in drawn)


@contextmanager
def demo(folder: Path, photos: Path | None, weights: Path | None) -> Iterator[str]:
    """Start the demo on a free port, and stop it when the block ends. Yields its address after its first search.

    Args:
        photos: the gallery; None for the sample gallery.
        weights: the checkpoint; None for the service's default.
    """
    command = [sys.executable, "-m", "service", "demo", str(folder), "--port", "0"]
    for flag, path in (("--photos", photos), ("--weights", weights)):
        command += [flag, str(path)] if path else []
    log = folder / "log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as server:
        try:
            assert server.stdout is not None
            url = ""
            for line in server.stdout:
                if line.startswith("sketch-search at "):
                    url = line.split()[-1]
                if line.startswith("Draw your own"):
                    break
            else:
                raise RuntimeError(f"the server has ended: {log.read_text()[-2000:]}")
            yield url
        finally:
            server.terminate()

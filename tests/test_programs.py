from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import patience
from tests.programs import started_python

BLOCKS = """
import signal, sys
print("loading", flush=True)
try:
    signal.pause()
except KeyboardInterrupt:
    if __name__ == "numpy":
        raise ImportError("as some libraries have it") from None
    raise
"""


@pytest.mark.parametrize("library", ["click", "numpy"])
@pytest.mark.parametrize("program", ["indexer info", "model info", "service"])
def test_a_program_that_is_stopped_while_it_is_loaded_says_so_without_a_traceback(
    program: str, library: str, tmp_path: Path
) -> None:
    (tmp_path / f"{library}.py").write_text(BLOCKS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    with started_python("-m", *program.split(), environment=environment, errors=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(patience.PATIENCE) == 130
        assert process.stderr.read() in ("", "stopped.\n")

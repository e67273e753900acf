"""Programs and waits that do not end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests import patience, programs
from tests.programs import run_python, started_python

FOREVER = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); signal.pause()"


def begin(program: str) -> str:
    """The first line that a program prints; then it is told to stop."""
    with started_python("-c", program) as process:
        assert process.stdout is not None
        return process.stdout.readline()


def test_a_program_that_does_not_end_is_killed_and_the_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(subprocess.TimeoutExpired, match="timed out after"):
        run_python("-c", FOREVER, seconds=0.1)
    monkeypatch.setattr(programs, "PATIENCE", 0.1)
    with pytest.raises(subprocess.TimeoutExpired, match="timed out after"):
        begin(FOREVER)


def test_a_program_that_stops_when_told_is_no_failure() -> None:
    assert begin("import signal; print('here', flush=True); signal.pause()") == "here\n"


def test_a_program_is_killed_at_once_where_the_test_fails_beside_it() -> None:
    with pytest.raises(ZeroDivisionError), started_python("-c", FOREVER) as process:
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGKILL


BLOCKS = """
import signal, sys
print("loading", flush=True)
try:
    signal.pause()
except KeyboardInterrupt:
    if __name__ == "torch":
        raise ImportError("as some libraries have it") from None
    raise
"""


@pytest.mark.parametrize("library", ["argparse", "torch"])
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


def test_a_wait_for_what_does_not_come_fails_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", 0.01)
    with pytest.raises(AssertionError, match=r"nobody came, after 0\.01 seconds"):
        patience.wait_until(lambda: False, "nobody came")
    never = threading.Event()
    with pytest.raises(AssertionError, match=r"nothing happened, after"):
        patience.wait_for(never, "nothing happened")
    thread = threading.Thread(target=never.wait, args=(600,), name="sleeper")
    thread.start()
    with pytest.raises(AssertionError, match="the thread sleeper has not ended"):
        patience.join(thread)
    never.set()
    thread.join(60)

"""The load script in its shortest form."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# Not imported here: it replaces parts of the standard library.
pytestmark = pytest.mark.skipif(not find_spec("locust"), reason="locust is not installed")


def test_a_server_under_load_answers_or_says_when_to_come_back(gallery: Path, weights: Path, tmp_path: Path) -> None:
    place = ["--output", str(tmp_path), "--photos", str(gallery), "--weights", str(weights)]
    command = [sys.executable, "-m", "tests.benchmarks.load", "--seconds", "1", *place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "load.json").read_text(encoding="utf-8"))
    assert result["capacity"] > 0
    assert [level["share"] for level in result["levels"]] == [0.5, 1.0, 2.0]
    assert [level["failed"] for level in result["levels"]] == [0, 0, 0]
    assert sum(level["answered"] for level in result["levels"]) > 0

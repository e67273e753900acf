"""The load script in its shortest form."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks.load_result import EAGER, Result, table
from tests.programs import LONG, run_python

# Its measurement is not imported here: it replaces parts of the standard library.
pytestmark = pytest.mark.skipif(not find_spec("locust"), reason="locust is not installed")


def test_a_server_under_load_answers_or_says_when_to_come_back(gallery: Path, weights: Path, tmp_path: Path) -> None:
    place = ["--output", str(tmp_path), "--photos", str(gallery), "--weights", str(weights)]
    done = run_python("-m", "tests.benchmarks.load", "--quick", *place, seconds=LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    result = Result.model_validate_json((tmp_path / "load.json").read_text(encoding="utf-8"))
    assert result.failed == 0
    patient = {row.clients: row.answers for row in result.clients}
    assert list(patient) == [1, 4, 16]
    assert all(answers.answered > 0 for answers in patient.values())
    # So few may always wait.
    assert patient[1].refused == patient[EAGER].refused == 0
    assert all(answers.p50_ms and answers.p50_ms <= (answers.p99_ms or 0) for answers in patient.values())
    assert result.capacity == patient[EAGER].per_second > 0
    assert [level.share for level in result.levels] == [0.5, 1.0, 2.0]
    assert sum(level.answers.answered for level in result.levels) > 0
    head = result.circumstances
    assert (head.network, head.device, head.quick) == ("tiny-random", "cpu", True)
    assert head.command.startswith("python -m tests.benchmarks.load --quick --output build/bench --photos ")
    assert table(result) in done.stdout

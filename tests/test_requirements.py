"""Tests that lack what they need are skipped, or fail where the machine must have it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.datasets.corpus import DATA_VARIABLE
from tests import requirements
from tests.programs import run_python
from tests.requirements import VARIABLE, required

NEEDING = """
from tests.requirements import needs_browser, needs_shared_data

@needs_browser
def test_looks():
    pass

@needs_shared_data
def test_measures():
    pass
"""


@pytest.mark.parametrize(
    ("required_here", "code", "counts"),
    [("", 0, "2 skipped in"), ("browser,data", 1, "2 errors in")],
)
def test_what_a_machine_lacks_is_skipped_unless_it_must_be_there(
    required_here: str, code: int, counts: str, tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_needing.py").write_text(NEEDING)
    # Plugins take most of the time to start, and these tests use none.
    environment = {**os.environ, "PATH": "", VARIABLE: required_here, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop(DATA_VARIABLE, None)
    arguments = ("-m", "pytest", "-q", "-p", "tests.conftest", str(tmp_path))
    done = run_python(*arguments, folder=Path(__file__).parents[1], environment=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert counts in done.stdout


def test_requirements_are_separated_by_commas_and_a_misspelt_one_is_refused() -> None:
    assert required({}) == frozenset()
    assert required({VARIABLE: "browser, data"}) == {"browser", "data"}
    with pytest.raises(pytest.UsageError, match="may name browser and data, but not browsers"):
        required({VARIABLE: "browsers"})


def test_the_data_are_looked_for_where_the_program_looks_for_them() -> None:
    assert requirements.DATA_VARIABLE == DATA_VARIABLE

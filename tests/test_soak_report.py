"""What the long tests note, and the table of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak_report import RUNS, noted, table


def test_what_was_noted_is_a_row_and_what_was_not_run_is_said_to_be_so(tmp_path: Path) -> None:
    with noted("requests", tmp_path) as run:
        run.made, run.grown_mib = 11_000, 1.26
    rows = table(tmp_path).splitlines()[2:]
    (row,) = (row for row in rows if row.startswith(f"| {RUNS['requests']} |"))
    assert row.endswith("| 11,000 | 0 | 1.3 MiB | 0 s |")
    assert sum(row.endswith("| not run | | | |") for row in rows) == len(rows) - 1 == len(RUNS) - 1


def test_a_run_that_ends_early_has_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with noted("store", tmp_path) as run:
            run.made = 7
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "| 7 | 1 |  | 0 s |" in table(tmp_path)

"""What the long tests note, and the table made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak_report import BLOCK, RUNS, main, noted


def test_what_was_noted_gets_into_the_page_once_every_test_has_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, results = tmp_path / "figures.md", tmp_path / "soak"
    empty = f"<!-- begin: {BLOCK} -->\n<!-- end: {BLOCK} -->\n"
    page.write_text(empty, encoding="utf-8")
    with noted("requests", results) as run:
        run.made, run.grown_mib = 11_000, 1.26
    assert main(["--page", str(page)], results) == 2
    assert page.read_text(encoding="utf-8") == empty
    assert "| not run |" in capsys.readouterr().out
    for name in RUNS.keys() - {"requests"}:
        with noted(name, results):
            pass
    assert main(["--page", str(page)], results) == 0
    assert f"| {RUNS['requests']} | 11,000 | 0 | 1.3 MiB | 0 s |" in page.read_text(encoding="utf-8")


def test_a_run_that_ends_early_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with noted("store", tmp_path) as run:
            run.made = 7
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert main([], tmp_path) == 0
    assert "| 7 | 1 |  | 0 s |" in capsys.readouterr().out

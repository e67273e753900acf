"""The table made of coverage.py's report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.coverage_report import BLOCK, main


def counted(statements: int, lines: int, branches: int, taken: int) -> dict[str, dict[str, int]]:
    return {
        "summary": {
            "num_statements": statements,
            "covered_lines": lines,
            "num_branches": branches,
            "covered_branches": taken,
        }
    }


def test_files_are_added_up_by_package_and_written_into_the_page(tmp_path: Path) -> None:
    files = {
        "model/matcher.py": counted(1000, 900, 100, 100),
        "model/images/ink.py": counted(50, 40, 50, 40),
        "service/engine.py": counted(100, 50, 0, 0),
        "tests/blocks.py": counted(100, 0, 0, 0),
    }
    (tmp_path / "coverage.json").write_text(json.dumps({"meta": {}, "files": files}), encoding="utf-8")
    page = tmp_path / "figures.md"
    page.write_text(f"<!-- begin: {BLOCK} -->\nold\n<!-- end: {BLOCK} -->\n", encoding="utf-8")
    assert main([str(tmp_path / "coverage.json"), "--page", str(page)]) == 0
    written = page.read_text(encoding="utf-8")
    assert "| `model` | 1,050 | 150 | 90.0 % |" in written
    assert "| `indexer` | 0 | 0 | 100.0 % |" in written
    assert "| all | 1,150 | 150 | 86.9 % |" in written
    assert "old" not in written


def test_a_missing_report_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err

"""The block of the comparison in the page of figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.evaluation import Interval
from model.papers.comparison.table import (
    Chosen,
    ComparisonRow,
    Figures,
    Peak,
    Point,
    Ranked,
    Retrieval,
    TrainedRate,
)
from model.papers.trainings import write_record
from tests.benchmarks.comparison import PLOT, main
from tests.benchmarks.results import read_blocks

HALF = Interval(0.5, 0.4, 0.6)
RANKED = Ranked(20, 30, Retrieval(HALF, HALF), Retrieval(Interval(0.7, 0.6, 0.8), HALF))


def chosen(rate: float | None, pictures: int, val: float) -> Chosen:
    figures = Figures("ret", RANKED, RANKED, HALF, 0.04, 10, 1.25, 3.0, 1, 768, 5_500_000, "f" * 64)
    return Chosen(rate, Point(pictures, val), figures)


def write_rows(folder: Path) -> None:
    slow = TrainedRate(3e-5, 60.0, (Point(500, 0.2), Point(1000, 0.3)))
    fast = TrainedRate(3e-4, 120.0, (Point(500, 0.35), Point(1000, 0.1)))
    peak = Peak(3e-4, Point(500, 0.35), "rn", RANKED, "e" * 64)
    rows = (
        ComparisonRow("untrained", "Not trained", 128, (), chosen(None, 0, 0.15), None),
        ComparisonRow("vit-ret", "Triplets", 128, (slow, fast), chosen(3e-5, 1000, 0.3), peak),
    )
    for row in rows:
        write_record(folder / f"{row.name}.json", row)


def test_the_tables_and_the_plot_get_into_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path)
    page = tmp_path / "figures.md"
    page.write_text("# Figures\n\n<!-- begin: Comparison -->\nNot measured yet.\n<!-- end: Comparison -->\n")
    assert main([str(tmp_path), "--page", str(page)]) == 0
    text = read_blocks(page.read_text())["Comparison"]
    assert text == capsys.readouterr().out.rstrip("\n")
    assert "Every training sees 1,000 pictures of 128 pixels" in text
    quality = "0.500 (0.400 to 0.600), 0.500 | 0.700 (0.600 to 0.800), 0.500"
    lines = text.splitlines()
    row = f"| Triplets | [Ret] | {{}} | {quality} | {quality} | 0.500 (0.400 to 0.600) |"
    assert row.format("3e-05 | 1,000 | 0.300") in lines
    assert f"| Triplets | relation network | 0.0003 | 500 | 0.350 | {quality} |" in lines
    assert f"| Not trained | [Ret] |  | 0 | 0.150 | {quality} | {quality} | 0.500 (0.400 to 0.600) |" in lines
    assert "| Triplets | 5.5 M | 3e-05: 0.300, 0.0003: 0.100 | 1.5 | 1.2 | 3.0 | 768 |" in lines
    assert f"]({PLOT})" in text
    assert (tmp_path / PLOT).is_file()


def test_without_rows_or_a_block_a_sentence_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no finished row of a comparison" in capsys.readouterr().err
    write_rows(tmp_path)
    (tmp_path / "page.md").write_text("# Nothing\n")
    assert main([str(tmp_path), "--page", str(tmp_path / "page.md")]) == 2
    assert "no block <!-- begin: Comparison -->" in capsys.readouterr().err

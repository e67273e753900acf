from pathlib import Path

import pytest

from tests.benchmarks.results import Result, main, read_blocks

PAGE = """# Title
<!-- begin: One -->
old
lines
<!-- end: One -->
by hand
<!-- begin: Two -->
<!-- end: Two -->
"""
ONE = Result(
    name="One",
    command="python -m one",
    machine="A processor",
    date="2026-11-20",
    said="Some photos.",
    rows=[
        {"way": "first", "photos": 11700, "time (ms)": 90.04},
        {"way": "second", "share": 0.12345, "time (ms)": None},
    ],
)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    results, page = tmp_path / "results", tmp_path / "page.md"
    results.mkdir()
    ONE.save(results / "one.json")
    page.write_text(PAGE, encoding="utf-8")
    return results, page


def test_a_result_gets_into_its_block_and_all_else_stays(place: tuple[Path, Path]) -> None:
    results, page = place
    assert main([str(results), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert read_blocks(text) == {
        "One": "Some photos.\n\n| way | photos | time (ms) | share |\n|---|---|---|---|\n"
        "| first | 11,700 | 90.0 |  |\n| second |  |  | 0.123 |\n\nA processor; 2026-11-20: `python -m one`",
        "Two": "",
    }
    assert "\nby hand\n" in text
    assert main([str(results), "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (ONE.model_copy(update={"quick": True}).model_dump_json(), "without --quick"),
        ('{"points": []}', "one.json is not as this version writes it"),
        (None, "there is no result"),
        (ONE.model_copy(update={"name": "Three"}).model_dump_json(), "the page has no block from <!-- begin: Three"),
    ],
    ids=["quick", "of another version", "none", "of no block"],
)
def test_broken_results_and_results_without_a_block_are_refused(
    place: tuple[Path, Path], written: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = place
    if written is None:
        (results / "one.json").unlink()
    else:
        (results / "one.json").write_text(written, encoding="utf-8")
    assert main([str(results), "--page", str(page)]) == 2
    assert told in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == PAGE

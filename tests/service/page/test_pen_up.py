"""The measurement from the end of a stroke to the photos, in its shortest form."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import Matcher
from tests.benchmarks.circumstances import Call, circumstances
from tests.benchmarks.pen_up import Lift, Result, drawings, main, table
from tests.requirements import needs_browser


@needs_browser
def test_a_stroke_is_measured_from_its_end_to_the_photos(gallery: Path, weights: Path, tmp_path: Path) -> None:
    place = ["--output", str(tmp_path), "--photos", str(gallery), "--weights", str(weights)]
    assert main([*place, "--quick"]) == 0
    result = Result.model_validate_json((tmp_path / "pen_up.json").read_text(encoding="utf-8"))
    assert len(result.lifts) == 3
    assert (result.circumstances.network, result.circumstances.quick) == ("tiny-random", True)
    # The page waits for the hand to rest, a request takes time, and nothing is shown before it was answered.
    assert all(min(vars(lift).values()) > 0 for lift in result.lifts)


def test_each_drawing_begins_anew_and_has_all_its_strokes() -> None:
    lines = drawings()
    begun = [next(lines)[0] for _ in range(13)]
    # Shapes of one stroke, one of two, and again; then the first shape once more.
    assert begun == [True] * 6 + [False] + [True] * 3 + [False] + [True] * 2


def test_the_table_tells_how_the_time_splits(matcher: Matcher) -> None:
    head = circumstances(matcher, Call("", quick=True))
    lifts = [Lift(pause_ms=250, request_ms=100 + number, show_ms=50) for number in range(11)]
    told = table(Result(circumstances=head, lifts=lifts))
    rows = {line[:18].strip(): line[18:].split() for line in told.splitlines()}
    assert rows["pause"] == ["250", "250"]
    assert rows["search"] == ["105", "110"]
    assert rows["pen-up to photos"] == ["405", "410"]


def test_without_a_browser_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert main(["--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("pen-up to photos: not measured: ")
    assert list(tmp_path.iterdir()) == []

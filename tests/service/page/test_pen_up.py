"""The measurement from the end of a stroke to the photos, in its shortest form."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import Matcher
from tests.benchmarks.circumstances import Call, circumstances
from tests.benchmarks.pen_up import QUICK_DRAWINGS, VIEWS, Lift, Result, main, table
from tests.requirements import needs_browser


@needs_browser
def test_a_stroke_is_measured_from_its_end_to_the_photos(gallery: Path, weights: Path, tmp_path: Path) -> None:
    place = ["--output", str(tmp_path), "--photos", str(gallery), "--weights", str(weights)]
    assert main([*place, "--quick"]) == 0
    result = Result.model_validate_json((tmp_path / "pen_up.json").read_text(encoding="utf-8"))
    assert [lift.view for lift in result.lifts] == ["photos", "kinds"] * QUICK_DRAWINGS
    assert (result.circumstances.network, result.circumstances.quick) == ("tiny-random", True)
    # The page waits for the hand to rest, a request takes time, and nothing is shown before it was answered.
    assert all(min(lift.pause_ms, lift.request_ms, lift.show_ms) > 0 for lift in result.lifts)


def test_the_table_tells_how_the_time_splits(matcher: Matcher) -> None:
    head = circumstances(matcher, Call("", quick=True))
    lifts = [
        Lift(view=view, pause_ms=250, request_ms=first + number, show_ms=50)
        for number in range(11)
        for view, first in zip(VIEWS, (100, 200), strict=True)
    ]
    told = table(Result(circumstances=head, lifts=lifts)).splitlines()
    rows = [(line[:18].strip(), line[18:].split()) for line in told if line.startswith(("search", "pen-up"))]
    assert rows == [
        ("search", ["105", "110"]),
        ("pen-up to photos", ["405", "410"]),
        ("search", ["205", "210"]),
        ("pen-up to photos", ["505", "510"]),
    ]


def test_without_a_browser_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert main(["--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("pen-up to photos: not measured: ")
    assert list(tmp_path.iterdir()) == []

"""The map of the rooms in docs/architecture.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import PAGE, Room, arrows, blocks, levels, main
from tests.blocks import read_blocks


def room(name: str) -> Room:
    return Room("house", name, Path(__file__), "", ())


def test_the_page_shows_the_rooms_as_the_code_has_them() -> None:
    assert read_blocks(PAGE.read_text(encoding="utf-8")) == blocks(), "run `python -m tests.architecture`"


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    rooms = [room(name) for name in ("attic", "cellar", "hall")]
    calls = {
        "house.attic": frozenset({"house.hall", "house.cellar", "garden"}),
        "house.hall": frozenset({"house.cellar"}),
    }
    assert arrows(rooms, calls) == (("attic", "hall"), ("hall", "cellar"))
    assert levels(rooms, calls) == {"attic": 2, "hall": 1, "cellar": 0}


def test_a_page_without_a_place_for_the_rooms_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n", encoding="utf-8")
    assert main(["--page", str(page)]) == 2
    assert "no block <!-- begin: Rooms of " in capsys.readouterr().err

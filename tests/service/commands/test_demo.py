"""`python -m service demo`, as `make demo` runs it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from indexer.samples import THINGS
from service.commands import main
from service.commands.demo import RESULTS, describe_samples
from tests.service.commands.stopped import SERVICE, run_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends the demo as Ctrl-C does on POSIX systems")


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        (2, "6 pictures: 4 drawn of 2 things, 2 photos from scikit-learn"),
        (0, "4 pictures: 4 drawn of 2 things"),
    ],
)
def test_drawn_pictures_and_photos_are_told_apart(tmp_path: Path, photos: int, said: str) -> None:
    for name, count in [*((name, 2) for name in list(THINGS)[:2]), ("scikit-learn", photos)]:
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.jpg").touch()
    assert describe_samples(tmp_path) == said


def run_demo(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a demo that is stopped once it says that it waits for that."""
    return run_until([*SERVICE, "demo", *arguments], lambda line: "Ctrl-C ends" in line or "failed" in line)


def test_photos_are_indexed_once_searched_and_served_until_ctrl_c(tmp_path: Path, gallery: Path, weights: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    options = (str(tmp_path / "demo"), "--photos", str(gallery), "--weights", str(weights), "--port", str(port))
    code, first = run_demo(*options)
    assert code == 0, first
    assert "Traceback" not in first
    assert f"{gallery}: 23 photos\n" in first
    assert "23 of them encoded now" in first
    assert f"Draw your own at http://127.0.0.1:{port}" in first
    rows = [line.split() for line in first.splitlines() if line.strip()[:1].isdigit() and ".png" in line]
    ranks = [row[0] for row in rows if len(row) == 3]
    assert ranks == [str(rank) for rank in range(1, RESULTS + 1)]
    # The port is free again, and nothing is computed twice.
    code, second = run_demo(*options)
    assert code == 0, second
    assert "0 of them encoded now" in second


def test_a_missing_checkpoint_is_a_sentence_and_nothing_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whether its port is free does not matter then.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ["--weights", str(tmp_path / "none"), "--port", str(taken.getsockname()[1])]
        for command in (["demo", str(tmp_path / "demo")], [str(tmp_path), "--index", str(tmp_path / "index")]):
            assert main([*command, *options]) == 2
            assert "there is no checkpoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

import os
from pathlib import Path

import pytest

from sketch_search.indexer.building.progress import Progress, ProgressState, read_progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def state(path: Path) -> ProgressState:
    return ProgressState.model_validate_json(path.read_bytes())


def test_the_file_has_rate_and_time_left_at_most_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    progress = Progress(clock=clock)
    with progress.of_build(tmp_path / "p.json"):
        progress.start("reading")
        # Files that need not be read count as done, but not for the rate.
        progress.skip(60)
        progress.start("encoding", 40)
        told = state(tmp_path / "p.json")
        assert (told.done, told.total, told.seconds_left) == (60, 100, None)
        clock.now = 0.5
        progress.advance(5)
        assert state(tmp_path / "p.json").done == 60
        clock.now = 2.0
        progress.advance(5, bad=2)
        told = state(tmp_path / "p.json")
        assert (told.phase, told.done, told.total, told.bad) == ("encoding", 70, 100, 2)
        assert (told.photos_per_second, told.seconds_left) == (5.0, 6.0)
        # Nor do those whose content has been encoded before.
        clock.now = 3.0
        progress.advance(20, known=20)
        told = state(tmp_path / "p.json")
        assert told.done == 90
        assert told.photos_per_second == pytest.approx(10 / 3)
        progress.start("clustering")
        assert (state(tmp_path / "p.json").done, state(tmp_path / "p.json").total) == (0, 0)
    assert state(tmp_path / "p.json").phase == "done"
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_without_a_terminal_a_line_now_and_then_reports_progress(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    for bar, said in ((False, []), (True, [2, 4, 6, 7, 8])):
        progress = Progress(bar=bar, clock=clock)
        progress.start("encoding", 9)
        # Soon at first, and later more rarely.
        for seconds in (1, 3, 4, 4, 15, 1, 32, 32, 31):
            clock.now += seconds
            progress.advance()
        assert capsys.readouterr().err == "".join(f"encoding: {done} of 9 photos\n" for done in said)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_file_that_is_no_progress_gives_none_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    for content in (b"{}", b" " * 10**6 + b"{"):
        (tmp_path / "progress.json").write_bytes(content)
        assert read_progress(tmp_path) is None
    (tmp_path / "progress.json").unlink()
    os.mkfifo(tmp_path / "progress.json")
    assert read_progress(tmp_path) is None

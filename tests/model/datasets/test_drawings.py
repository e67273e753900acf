from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.datasets import read_drawings

CROSS = [[[0, 255], [0, 255]], [[255, 0], [0, 255]]]


def packed(archive: Path, folder: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    strokes, people = tmp_path / "strokes", tmp_path / "viscomm" / "sketch" / "bird"
    strokes.mkdir()
    with gzip.open(strokes / "alarm_clock.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps(CROSS) + "\n" for _ in range(2))
    people.mkdir(parents=True)
    Image.new("L", (8, 8), 255).save(people / "one.png")
    packed(tmp_path / "data" / "more2" / "strokes.tar.gz", strokes)
    packed(tmp_path / "data" / "more2" / "people.tar.gz", tmp_path / "viscomm")
    return tmp_path


def test_strokes_are_drawn_once_as_black_lines_on_white_and_stand_beside_the_other_drawings(data: Path) -> None:
    sketches = read_drawings(data).sketches
    assert [(s.label, s.source) for s in sketches] == [("bird", "viscomm")] + [("alarm_clock", "strokes")] * 2
    first, second = (np.asarray(Image.open(s.path)) for s in sketches[1:])
    assert first.shape == (512, 512)
    assert set(np.unique(first)) == {0, 255}
    # Both diagonals meet in the middle; the second drawing has thicker lines.
    assert first[255, 255] == 0
    assert first[10, 10] == 255
    assert (second == 0).sum() > (first == 0).sum() > 0
    written = [s.path.stat().st_mtime_ns for s in sketches]
    assert [s.path.stat().st_mtime_ns for s in read_drawings(data).sketches] == written


def test_without_those_archives_there_are_no_drawings(tmp_path: Path) -> None:
    assert read_drawings(tmp_path).sketches == ()

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from indexer import read_summary
from service.commands import main
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sketches and photos of three classes, and two checkpoints of different networks."""
    write_class_folders(tmp_path / "data", seeds=range(4), shapes=("star", "house", "circle"))
    tiny_checkpoint(tmp_path / "old.safetensors")
    tiny_checkpoint(tmp_path / "new.safetensors", seed=1)
    return tmp_path


def compare(data: Path, *options: str) -> int:
    checkpoints = [str(data / "old.safetensors"), str(data / "new.safetensors")]
    where = ["--sketches", str(data / "data" / "sketch"), "--photos", str(data / "data" / "photo")]
    return main(["compare", *checkpoints, *where, "-o", str(data / "out"), "--k", "4", *options])


def test_two_checkpoints_are_compared_on_a_page_and_by_figures_and_their_indexes_kept(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(next((data / "data" / "sketch" / "star").iterdir()), data / "data" / "sketch" / "loose.png")
    (data / "data" / "sketch" / "star" / "9 broken.png").write_bytes(b"no picture")
    assert compare(data, "--per-class", "5", "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert "9 broken.png" in printed.err
    assert (len(result["sketches"]), result["labelled"], result["photos"], result["k"]) == (13, 12, 12, 4)
    old, new = result["networks"]
    assert (old["checkpoint"], new["checkpoint"]) == ("old", "new")
    assert old["results"] != new["results"]
    named = [Path(path).parent.name for path in result["sketches"]]
    right = [
        sum(Path(path).parent.name == label for path in row) / 4
        for label, row in zip(named, old["results"], strict=True)
        if label != "sketch"
    ]
    assert old["precision"] == pytest.approx(sum(right) / len(right))
    page = (data / "out" / "compare.html").read_text()
    assert page.count("data:image/jpeg") == 2 * 13 * 4
    assert page.count("data:image/png") == 13
    both = [row for network in (old, new) for row in zip(named, network["results"], strict=True)]
    assert "mAP@4" in page
    shown_right = sum(Path(path).parent.name == label for label, row in both for path in row)
    assert page.count('class="right"') == shown_right
    indexes = [data / "out" / f"{name}-index" for name in ("old", "new")]
    generations = [read_summary(index).generation for index in indexes]
    assert compare(data, "--per-class", "1") == 0
    table = capsys.readouterr().out
    assert "3 of them with a label" in table
    assert "compare.html" in table
    assert [read_summary(index).generation for index in indexes] == generations
    # Where nobody knows what is right, the page has no figures of it.
    loose = ["--sketches", str(data / "data" / "sketch" / "loose.png")]
    assert compare(data, *loose, "--json") == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 0
    assert "mAP" not in (data / "out" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("one", "two checkpoints or more"),
        ("same name", "two checkpoints are called old"),
        ("no sketches", "there is no sketch in"),
        ("no folder", "there is no folder"),
        ("output", "is a file; name a folder"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_sentence(
    data: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = str(data / "old.safetensors"), str(data / "new.safetensors")
    (data / "empty").mkdir()
    checkpoints = {"one": [old], "same name": [old, str(data / "other" / "old.safetensors")]}.get(change, [old, new])
    sketches = {"no sketches": "empty", "no folder": "nowhere"}.get(change, "data/sketch")
    output = data / ("old.safetensors" if change == "output" else "out")
    where = ["--sketches", str(data / sketches), "--photos", str(data / "data" / "photo"), "-o", str(output)]
    assert main(["compare", *checkpoints, *where]) == 2
    assert said in capsys.readouterr().err

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from model.commands import main
from model.papers.comparison import ablations
from model.papers.comparison.ablations import ablation_names
from tests.learning import small_backbone, write_class_folders

SMALL = (
    'preset = "zse-ti16"\nbf16 = false\n'
    "[network]\nwidth = 32\ndepth = 4\nheads = 2\nmlp_ratio = 2.0\ntokenizer_widths = [4, 8, 16]\n"
    "select_after = [1, 2]\ncross_heads = 2\ncross_ffn = 32\n"
    "[[phases]]\nimage_size = 64\nsteps = 2\n[quadruplets]\nsamples = 2\n"
)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ablations, "FOLDER", tmp_path / "recipes")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "default.toml").write_text(SMALL)
    (tmp_path / "recipes" / "default-vit-ret.toml").write_text('base = "default.toml"\n[quadruplets]\nrelation = 0.0\n')
    write_class_folders(tmp_path / "data", seeds=range(2))
    save_file(small_backbone(), tmp_path / "vit.safetensors")
    given = ["--backbone", str(tmp_path / "vit.safetensors"), "--data", str(tmp_path / "data")]
    return ["ablate", *given, "--run", str(tmp_path / "runs")]


def test_each_row_is_trained_and_measured_once_and_has_a_line_of_the_table(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "default"]) == 0
    weights = tmp_path / "runs" / "default.safetensors"
    first = weights.stat().st_mtime_ns, (tmp_path / "runs" / "default.json").stat().st_mtime_ns
    assert main([*command, "--json"]) == 0
    assert first == (weights.stat().st_mtime_ns, (tmp_path / "runs" / "default.json").stat().st_mtime_ns)
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows["default"]["figures"]) == {"rn", "ret", "fused", "vis"}
    assert set(rows["default-vit-ret"]["figures"]) == {"ret", "vis"}
    assert rows["default"]["pictures"] == rows["default-vit-ret"]["pictures"] == 16
    figure = rows["default"]["figures"]["rn"]["map_all"]
    assert 0 < figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| default", "| default-vit-ret"]


def test_the_rows_of_sketch_an_anchor_are_trained_by_the_same_command(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablations, "ANCHOR_FOLDER", tmp_path / "recipes")
    (tmp_path / "recipes" / "baseline.toml").write_text(
        'method = "sketch-an-anchor"\nbackbone = "vit_tiny_patch16_224"\nsteps = 1\nbatch = 2\nbf16 = false\n'
        "[network]\nimage_size = 64\nunits = 24\nanchors = []\n"
        "[network.sizes]\nembed_dim = 32\ndepth = 4\nnum_heads = 2\nmlp_ratio = 2.0\n"
    )
    assert main([*command, "baseline", "--method", "sketch-an-anchor", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["pictures"], set(row["figures"])) == ("baseline", 4, {"ret"})
    assert main([*command, "default", "--method", "sketch-an-anchor"]) == 2
    assert "choose among baseline, visual-anchors, both-anchors" in capsys.readouterr().err


def test_a_budget_makes_all_rows_as_long_and_draws_them(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sized = [*command, "--budget", "9", "--image-size", "48", "--json"]
    assert main(sized) == 0
    rows = json.loads(capsys.readouterr().out)
    # A step of these recipes sees eight pictures.
    assert [row["pictures"] for row in rows] == [8, 8]
    assert "image_size = 48, steps = 1" in (tmp_path / "runs" / "default.toml").read_text()
    plot = (tmp_path / "runs" / "ablations.svg").read_text()
    assert "<svg" in plot
    assert "default-vit-ret" in plot
    assert main([*command, "--budget", "16"]) == 2
    assert "holds rows of another budget" in capsys.readouterr().err
    assert main([*command, "--image-size", "48"]) == 2
    assert "--image-size needs --budget" in capsys.readouterr().err


def test_figures_of_other_weights_or_pictures_are_measured_anew(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "default", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)[0]
    assert main([*command, "default", "--json", "--every", "2,1"]) == 0
    half = json.loads(capsys.readouterr().out)[0]
    assert half["queries"] < whole["queries"]
    assert half["checkpoint_sha256"] == whole["checkpoint_sha256"]


def test_an_unknown_row_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "without-eyes"]) == 2
    assert "there is no row 'without-eyes'; choose among default, default-vit-ret" in capsys.readouterr().err


def test_the_rows_are_those_of_the_default_network() -> None:
    names = ablation_names()
    assert {"default", "default-all-tokens", "default-vit-ret", "default-without-ca"} <= set(names)
    assert all(name.startswith("default") for name in names)

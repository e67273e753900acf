"""The comparison of all methods: fair choices, and rows that are done once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from model.commands import main
from model.datasets.corpus import DATA_VARIABLE
from model.errors import ModelError
from model.matcher import load
from model.papers import comparison
from model.papers.comparison import FACTORS, METHODS, ComparedMethod, ComparisonRequest, budgeted, compare
from model.papers.recipe import read_recipe
from tests.archives import pack
from tests.learning import small_backbone
from tests.pictures import SHAPES, drawing, encoded, photo

PICTURES = 8
ZSE = (
    'preset = "zse-ti16"\nbf16 = false\nsteps = 9\n'
    "[network]\nwidth = 32\ndepth = 4\nheads = 2\nmlp_ratio = 2.0\ntokenizer_widths = [4, 8, 16]\n"
    "select_after = [1, 2]\ncross_heads = 2\ncross_ffn = 32\n[quadruplets]\nsamples = 1\n"
)
ANCHORS = (
    'method = "sketch-an-anchor"\nbackbone = "vit_tiny_patch16_224"\nsteps = 9\nbatch = 2\nbf16 = false\n'
    "[network]\nimage_size = 64\nunits = 24\nanchors = []\n"
    "[network.sizes]\nembed_dim = 32\ndepth = 4\nnum_heads = 2\nmlp_ratio = 2.0\n"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optional data of six classes, two for each part of the split, and one ordinary photo."""
    folder = tmp_path_factory.mktemp("shared")
    pictures = {}
    for label in SHAPES[:6]:
        for seed in range(6):
            pictures[f"sketchy/photo/{label}/{seed:03}.png"] = encoded(photo(label, 64, seed))
            pictures[f"sketchy/sketch/{label}/{seed:03}-1.png"] = encoded(drawing(label, 64, seed))
    pack(folder / "data" / "sketchy.tar.gz", pictures)
    split = {part: SHAPES[2 * n : 2 * n + 2] for n, part in enumerate(("train", "val", "unseen"))}
    (folder / "data" / "split.json").write_text(json.dumps(split))
    boxes = {"1.jpg": [["dog", False, 0.0, 0.0, 1.0, 1.0]]}
    scene = {"voc2007/1.jpg": encoded(photo("star", 64, 9)), "voc2007/labels.json": json.dumps(boxes).encode()}
    pack(folder / "data" / "more" / "everyday.tar.gz", scene)
    save_file(small_backbone(), folder / "vit.safetensors")
    (folder / "zse.toml").write_text(ZSE)
    (folder / "anchors.toml").write_text(ANCHORS)
    return folder


@pytest.fixture(autouse=True)
def _small_methods(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the comparison one of small recipes on small data."""
    monkeypatch.setenv(DATA_VARIABLE, str(shared))
    monkeypatch.setattr("model.datasets.corpus.platformdirs.user_cache_path", lambda _: shared / "cache")
    methods = (
        ComparedMethod("untrained", "not trained", shared / "zse.toml", trained=False),
        ComparedMethod("zse", "ZSE", shared / "zse.toml"),
        ComparedMethod("anchors", "Sketch-an-Anchor", shared / "anchors.toml"),
    )
    monkeypatch.setattr(comparison, "METHODS", methods)
    monkeypatch.setattr(comparison, "VALIDATION_SHARE", 1)


def request(shared: Path, folder: Path, *methods: str) -> ComparisonRequest:
    return ComparisonRequest(methods, str(shared / "vit.safetensors"), folder, PICTURES, 64)


def test_every_method_is_trained_at_three_rates_and_the_best_one_is_measured_once(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", "--backbone", str(shared / "vit.safetensors"), "--out", str(out)]
    command += ["--budget", str(PICTURES), "--image-size", "64"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["pictures"]) for row in rows] == [("untrained", 0), ("zse", 8), ("anchors", 8)]
    for row in rows:
        folder = out / row["name"]
        files = [folder / f"{factor:g}" for factor in FACTORS] if row["factor"] else [folder]
        found = {path: load(path / "final.safetensors", variants=1) for path in files}
        chosen = found[folder / f"{row['factor']:g}" if row["factor"] else folder]
        assert (chosen.checkpoint_sha256, chosen.config.image_size) == (row["sha256"], 64)
        assert chosen.best_method == row["method"]
        assert (row["unseen"]["queries"], row["unseen"]["photos"]) == (12, 12)
        assert row["everything"]["photos"] > 12
        for interval in (row["unseen"]["map_all"], row["unseen"]["diffused"], row["everything"]["map_all"]):
            assert 0 < interval["low"] <= interval["value"] <= interval["high"] <= 1
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(command) == 0
    table = capsys.readouterr().out
    lines = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert lines[2:] == ["| not trained", "| ZSE", "| Sketch-an-Anchor"]
    assert "Every training sees 8 pictures" in table
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_a_folder_holds_rows_of_one_budget_and_one_start(shared: Path, tmp_path: Path) -> None:
    compare(request(shared, tmp_path, "untrained"), print)
    own = request(shared, tmp_path, "untrained")
    for other in (dataclasses.replace(own, pictures=20), dataclasses.replace(own, image_size=96)):
        with pytest.raises(ModelError, match="another folder with --out"):
            compare(other, print)
    (tmp_path / "untrained.json").write_text("{}")
    with pytest.raises(ModelError, match=r"untrained.json cannot be read; remove it"):
        compare(request(shared, tmp_path, "untrained"), print)


def test_nothing_starts_for_a_method_that_is_not_there_or_a_budget_below_a_step(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no method 'zsse' to compare; choose among untrained, zse, anchors"):
        compare(request(shared, tmp_path / "out", "zsse"), print)
    with pytest.raises(ModelError, match=r"a step of .*zse\.toml sees 4 pictures, so a budget of 3 is too small"):
        compare(dataclasses.replace(request(shared, tmp_path / "out"), pictures=3), print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_recipe_at_a_budget_differs_in_length_size_and_rates_alone(method: ComparedMethod, tmp_path: Path) -> None:
    first = read_recipe(method.recipe)
    asked = ComparisonRequest((), "", tmp_path, 15_000, 128)
    (tmp_path / "recipe.toml").write_text(budgeted(method.recipe, asked, 3.0))
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert 14_900 < recipe.pictures <= 15_000
    assert recipe.network["image_size"] == 128
    for rate in recipe.rates:
        assert getattr(recipe.optimiser, rate) == pytest.approx(3 * getattr(first.optimiser, rate))
    changed = {"steps", "network", "optimiser", "save_every", "evaluate_every", "evaluate_share"}
    same = {field.name for field in dataclasses.fields(first)} - changed
    assert all(getattr(first, name) == getattr(recipe, name) for name in same)

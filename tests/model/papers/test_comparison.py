"""The comparison of all methods: fair choices, rows that are done once, and trainings that were stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn

from model.commands import main
from model.datasets.corpus import DATA_VARIABLE
from model.errors import ModelError
from model.matcher import load
from model.papers.comparison import table as rows_of_the_table
from model.papers.comparison.run import FACTORS, ComparisonRequest, compare, highest, planned
from model.papers.comparison.table import (
    ABLATIONS,
    METHODS,
    Chosen,
    ComparedMethod,
    ComparisonRow,
    Point,
    TrainedRate,
    chosen_methods,
)
from model.papers.recipe import Budget, at_budget
from model.papers.trainings import read_record
from model.training.loop import Loop
from tests.archives import pack
from tests.learning import small_backbone
from tests.pictures import SHAPES, drawing, encoded, photo

PICTURES = 8
ZSE = (
    'preset = "zse-ti16"\nbf16 = false\n'
    "[network]\nwidth = 32\ndepth = 4\nheads = 2\nmlp_ratio = 2.0\ntokenizer_widths = [4, 8, 16]\n"
    "select_after = [1, 2]\ncross_heads = 2\ncross_ffn = 32\n"
    "[[phases]]\nimage_size = 224\nsteps = 9\n[quadruplets]\nsamples = 1\n"
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
def _made_up(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(shared, monkeypatch)


def made_up(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the comparison one of small recipes on small data."""
    monkeypatch.setenv(DATA_VARIABLE, str(shared))
    monkeypatch.setattr("model.datasets.corpus.platformdirs.user_cache_path", lambda _: shared / "cache")
    methods = (
        ComparedMethod("untrained", "not trained", shared / "zse.toml", trained=False),
        ComparedMethod("zse", "ZSE", shared / "zse.toml"),
        ComparedMethod("anchors", "Sketch-an-Anchor", shared / "anchors.toml"),
    )
    monkeypatch.setattr(rows_of_the_table, "METHODS", methods)
    for module in ("comparison.run", "recipe"):
        monkeypatch.setattr(f"model.papers.{module}.VALIDATION_SHARE", 1)
    # The curve of each training takes longer than its steps.
    monkeypatch.setattr("model.training.loop.draw_curve", lambda *_: None)


def request(shared: Path, folder: Path, *methods: str) -> ComparisonRequest:
    return ComparisonRequest(methods, str(shared / "vit.safetensors"), folder, PICTURES, 64)


def without_times(row: ComparisonRow) -> ComparisonRow:
    """The row without what differs when the same is done again; the order of a checkpoint's metadata differs, too."""

    def timeless(chosen: Chosen) -> Chosen:
        figures = dataclasses.replace(chosen.figures, photo_ms=0.0, query_ms=0.0, sha256="")
        return dataclasses.replace(chosen, figures=figures)

    return dataclasses.replace(
        row,
        rates=tuple(dataclasses.replace(rate, seconds=0.0) for rate in row.rates),
        final=timeless(row.final),
        peak=None if row.peak is None else dataclasses.replace(row.peak, sha256=""),
    )


def test_every_method_is_trained_at_three_rates_and_its_choice_is_measured(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", "--backbone", str(shared / "vit.safetensors"), "--out", str(out)]
    command += ["--budget", str(PICTURES), "--image-size", "64"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["untrained", "zse", "anchors"]
    untrained, zse, anchors = rows
    assert untrained["rates"] == []
    assert untrained["final"]["at"]["pictures"] == 0
    for row, recipe in ((zse, "zse"), (anchors, "anchors")):
        assert len(row["rates"]) == len(FACTORS) == 3
        assert [rate["curve"][-1]["pictures"] for rate in row["rates"]] == [PICTURES] * 3
        ends = {rate["rate"]: rate["curve"][-1]["val"] for rate in row["rates"]}
        assert ends[row["final"]["rate"]] == max(ends.values())
        points = [point["val"] for rate in row["rates"] for point in rate["curve"]]
        peak = row["peak"] or row["final"]
        assert peak["at"]["val"] == max(points)
        assert row["peak"] is None or max(points) > max(ends.values())
        figures = row["final"]["figures"]
        assert (figures["unseen"]["queries"], figures["unseen"]["photos"]) == (12, 12)
        assert figures["everything"]["photos"] > 12
        assert figures["instance_queries"] == 12
        for ranked in (figures["unseen"]["plain"], figures["unseen"]["diffused"], figures["everything"]["plain"]):
            assert 0 < ranked["map_all"]["low"] <= ranked["map_all"]["value"] <= ranked["map_all"]["high"] <= 1
        assert figures["photo_ms"] > 0 < figures["query_ms"]
        matcher = load(out / f"{row['name']}.safetensors")
        assert (matcher.checkpoint_sha256, matcher.config.image_size) == (figures["sha256"], 64)
        assert sorted(path.name for path in (out / row["name"] / f"{row['rates'][0]['rate']:g}").iterdir()) == [
            "done.json",
            "log.jsonl",
            "recipe.toml",
        ], recipe
    # A vector of 24 numbers, in float32.
    assert anchors["final"]["figures"]["photo_bytes"] == 4 * 24
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert main(command) == 0
    table = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")][2:5] == [
        "| not trained",
        "| ZSE",
        "| Sketch-an-Anchor",
    ]
    assert "Every training sees 8 pictures of 64 pixels" in table
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert (out / "comparison.svg").read_text().startswith("<?xml")


def test_a_comparison_that_is_stopped_anywhere_ends_as_one_that_was_not(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(request(shared, tmp_path / "whole", "zse"), print)
    stopped = request(shared, tmp_path / "stopped", "zse")
    real, saves = Loop.save, 0

    def save(loop: Loop[nn.Module]) -> None:
        nonlocal saves
        saves += 1
        if saves in (2, 4):
            raise KeyboardInterrupt
        real(loop)

    monkeypatch.setattr(Loop, "save", save)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            compare(stopped, print)
    monkeypatch.setattr("model.papers.comparison.run.measure_checkpoint", _stop)
    with pytest.raises(KeyboardInterrupt):
        compare(stopped, print)
    monkeypatch.undo()
    made_up(shared, monkeypatch)
    # What has been measured is not measured again.
    monkeypatch.setattr("model.papers.comparison.run.ComparisonRow", _stop)
    with pytest.raises(KeyboardInterrupt):
        compare(stopped, print)
    monkeypatch.undo()
    made_up(shared, monkeypatch)
    monkeypatch.setattr("model.papers.comparison.run.measure_checkpoint", _stop)
    assert [without_times(row) for row in compare(stopped, print)] == [without_times(row) for row in whole]
    assert not list((tmp_path / "stopped").glob("*.measured.json"))


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_holds_rows_of_one_budget_and_one_start(shared: Path, tmp_path: Path) -> None:
    compare(request(shared, tmp_path, "untrained"), print)
    with pytest.raises(ModelError, match="another folder with --out"):
        compare(dataclasses.replace(request(shared, tmp_path, "untrained"), pictures=20), print)
    with pytest.raises(ModelError, match="another folder with --out"):
        compare(dataclasses.replace(request(shared, tmp_path, "untrained"), image_size=96), print)
    (tmp_path / "untrained.json").write_text("{}")
    with pytest.raises(ModelError, match=r"untrained.json cannot be read: name: .*remove it"):
        compare(request(shared, tmp_path, "untrained"), print)


def test_nothing_starts_for_a_method_that_is_not_there_a_recipe_that_is_missing_or_a_budget_below_a_step(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="there is no method 'zsse' to compare; choose among untrained, zse, anchors"):
        compare(request(shared, tmp_path / "out", "zsse"), print)
    with pytest.raises(ModelError, match=r"a step of .*zse\.toml sees 4 pictures, so a budget of 3 is too small"):
        compare(dataclasses.replace(request(shared, tmp_path / "out"), pictures=3), print)
    missing = (*rows_of_the_table.METHODS, ComparedMethod("later", "Later", Path("no/such")))
    monkeypatch.setattr(rows_of_the_table, "METHODS", missing)
    with pytest.raises(ModelError, match="there is no recipe no/such"):
        compare(request(shared, tmp_path / "out"), print)
    assert not (tmp_path / "out").exists()


def test_the_peak_is_the_highest_point_of_all_curves() -> None:
    slow = TrainedRate(1e-5, 1.0, (Point(10, 0.2), Point(20, 0.3)))
    fast = TrainedRate(1e-4, 1.0, (Point(10, 0.4), Point(20, 0.25)))
    assert highest([slow, fast]) == (1, Point(10, 0.4))
    assert highest([slow, slow]) == (0, Point(20, 0.3))


@pytest.mark.parametrize("method", [*METHODS, *ABLATIONS], ids=lambda method: method.name)
def test_every_row_of_the_table_has_a_recipe_that_fits_a_budget(method: ComparedMethod, tmp_path: Path) -> None:
    budget = Budget(15_000, 128)
    for training in planned(method, budget, tmp_path):
        assert 14_900 < training.recipe.pictures <= 15_000
        path = tmp_path / "recipe.toml"
        path.write_text(training.recipe.text)
        assert at_budget(path, budget).pictures == training.recipe.pictures
        assert at_budget(path, budget).rate == training.recipe.rate
    assert len({training.recipe.rate for training in planned(method, budget, tmp_path)}) == (3 if method.trained else 0)


def test_a_row_that_was_written_is_read_as_it_was(shared: Path, tmp_path: Path) -> None:
    (row,) = compare(request(shared, tmp_path, "untrained"), print)
    assert read_record(ComparisonRow, tmp_path / "untrained.json") == row
    assert chosen_methods(("untrained",))[0].title == row.title

"""The benchmarks of the search in their shortest form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from indexer import Index, open_index
from model import Matcher
from model.convert import released_config
from model.corpus import DATA_VARIABLE
from model.network import Network
from tests.benchmarks import indexing, two_stage
from tests.benchmarks.cluster_ranking import RANKINGS, recalls
from tests.benchmarks.galleries import prepare
from tests.benchmarks.growth import RepeatedIndex, draw, table
from tests.benchmarks.growth import measure as measure_growth
from tests.service.conftest import draw_sketch


def test_every_way_is_compared_with_the_exhaustive_search_and_a_stopped_run_goes_on(
    tmp_path: Path, weights: Path, matcher: Matcher
) -> None:
    place, log = tmp_path / "index", tmp_path / "log.jsonl"
    queries = prepare(place, matcher, 50)[:2]
    with open_index(place, matcher) as index:
        found, _ = two_stage.measure(index, matcher, queries, 1, log)
        written = log.read_text(encoding="utf-8")
        # As it is when a run was stopped while it wrote.
        log.write_text(written[:-20], encoding="utf-8")
        again, clusters = two_stage.measure(index, matcher, queries, 1, log)
    assert [one.top for one in again] == [one.top for one in found]
    assert again[:-1] == found[:-1]
    compared = {row.way: row for row in two_stage.rows(found)}
    assert list(compared) == [way for way, how in two_stage.WAYS.items() if "diffuse" not in how]
    exhaustive = compared[two_stage.EXHAUSTIVE]
    assert (exhaustive.queries, exhaustive.agreement, exhaustive.pairs_ratio) == (1, 1, 1)
    assert exhaustive.differences["map_100"].value == 0
    assert (compared["ret, thin 50"].pairs, exhaustive.pairs) == (50, 50 + index.cluster_count)
    assert all(found_by[32] == pytest.approx(1) for found_by in clusters.values())


def test_clusters_are_ranked_in_three_ways(index: Index, matcher: Matcher) -> None:
    relevant = np.arange(index.photo_count) == 0
    found = recalls(index, matcher, [(draw_sketch(), relevant)])
    assert list(found) == list(RANKINGS)
    for shares in found.values():
        assert sorted(shares.values()) == list(shares.values())
        assert shares[32] == 1


def test_growth_is_measured_on_the_rows_of_a_small_gallery(index: Index, matcher: Matcher, tmp_path: Path) -> None:
    larger = RepeatedIndex(index, 60)
    ids, ret = larger.all_ret()
    assert (len(ids), len(ret), larger.cluster_sizes.sum()) == (60, 60, 60)
    assert np.array_equal(ret[: index.photo_count], index.all_ret()[1])
    points = measure_growth(index, matcher, (30, 60), [draw_sketch()], tmp_path / "growth.json")
    assert {point.way: point.pairs for point in points if point.photos == 60} == {
        "exhaustive": 68,
        "clusters": points[-3].pairs,
        "ret": 60,
        "method ret": 60,
    }
    assert len(json.loads((tmp_path / "growth.json").read_text())["points"]) == 8
    assert "exhaustive" in table(points)
    assert draw(points, tmp_path / "growth.svg")
    assert "<svg" in (tmp_path / "growth.svg").read_text()


def test_the_command_writes_its_tables(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--output", str(tmp_path), "--weights", str(weights), "--drawn", "30", "--queries", "1"]
    assert two_stage.main(command) == 0
    assert "relation network, mean tokens" in capsys.readouterr().out
    result = two_stage.Result.model_validate_json((tmp_path / "two_stage.json").read_text())
    assert (result.photos, len(result.all_queries)) == (30, len(two_stage.WAYS) - 1)
    assert two_stage.main(["--output", str(tmp_path), "--weights", str(tmp_path / "none")]) == 2


def test_indexing_is_measured_whole_and_in_parts(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(indexing, "MEGAPIXELS", (640, 480))
    monkeypatch.setattr(indexing, "clip_tower", lambda: nn.Sequential(nn.AvgPool2d(32), nn.Flatten()))
    released = dataclasses.replace(released_config(), image_size=32, width=32, depth=1, heads=2, select_after=())
    monkeypatch.setattr(indexing, "released_network", lambda: Network(released).requires_grad_(False).eval())
    threads = torch.get_num_threads()
    assert indexing.main(["--output", str(tmp_path), "--weights", str(weights), "--quick"]) == 0
    assert torch.get_num_threads() == threads
    result = indexing.Result.model_validate_json((tmp_path / "indexing.json").read_text())
    assert [row.photos for row in result.rows] == [16, 16, 40, 40, 40, 16, 16]
    assert (result.rounds, result.real, result.rows[0].name, result.rows[0].ratio) == (2, False, indexing.RELEASED, 1)
    for row in result.rows:
        assert row.ratio == pytest.approx(row.photos_per_second / result.rows[0].photos_per_second)
    assert "whole build" in capsys.readouterr().out
    assert indexing.main(["--output", str(tmp_path), "--weights", str(tmp_path / "none")]) == 2

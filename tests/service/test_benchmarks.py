"""The benchmarks of the search in their shortest form."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from indexer import Index, open_index, verify
from model import Matcher
from model.checkpoint.conversion import released_config
from model.datasets.corpus import DATA_VARIABLE
from model.network.zse import Network
from tests.benchmarks import growth, indexing, large, large_index, query_parts, scoring, two_stage
from tests.benchmarks.circumstances import Call
from tests.benchmarks.galleries import prepare
from tests.benchmarks.growth import RepeatedIndex
from tests.benchmarks.large_search import Asked, measure
from tests.benchmarks.sharded import write_shards
from tests.service.served import Served
from tests.service.small_gallery import PHOTOS, draw_sketch


def test_every_way_is_compared_with_the_exhaustive_search_and_a_stopped_run_goes_on(
    tmp_path: Path, weights: Path, matcher: Matcher
) -> None:
    place, log = tmp_path / "index", tmp_path / "log.jsonl"
    queries = prepare(place, matcher, 50)[:2]
    with open_index(place, matcher) as index:
        found = two_stage.measure(index, matcher, queries, log)
        written = log.read_text(encoding="utf-8")
        # As it is when a run was stopped while it wrote.
        log.write_text(written[:-20], encoding="utf-8")
        again = two_stage.measure(index, matcher, queries, log)
    assert [one.top for one in again] == [one.top for one in found]
    assert again[:-1] == found[:-1]
    compared = {row.way: row for row in two_stage.rows(found)}
    assert list(compared) == [way for way, how in two_stage.WAYS.items() if "diffuse" not in how]
    exhaustive = compared[two_stage.EXHAUSTIVE]
    plain = compared[two_stage.PLAIN + two_stage.EXHAUSTIVE]
    for row in (exhaustive, plain):
        assert (row.queries, row.agreement, row.pairs_ratio, row.pairs) == (2, 1, 1, 50 + index.cluster_count)
        assert row.differences["map_100"].value == 0
    assert compared["ret, thin 32"].pairs == 32


def test_growth_is_measured_on_the_rows_of_a_small_gallery(index: Index, matcher: Matcher, tmp_path: Path) -> None:
    larger = RepeatedIndex(index, 60)
    ret = larger.all_ret()
    assert (len(larger.ids), len(ret), larger.cluster_sizes.sum()) == (60, 60, 60)
    assert np.array_equal(ret[: index.photo_count], index.all_ret())
    call = Call("python -m tests.benchmarks.growth", quick=True)
    result = growth.measure(index, matcher, (30, 60), [draw_sketch()], tmp_path / "growth.json", call)
    points = result.points
    assert {point.way: point.pairs for point in points if point.photos == 60} == {
        "exhaustive": 68,
        "clusters": points[-3].pairs,
        "ret": 60,
        "method ret": 60,
    }
    assert len(points) == 8
    small, large = result.room
    # [Ret] and the ids, of 30 photos more; the centroids are more, too.
    assert large.memory_mib - small.memory_mib > 30 * (ret[0].nbytes + 8) / growth.MIB
    assert large.disk_mib > small.disk_mib > 0
    assert result.finished
    assert growth.Result.model_validate_json((tmp_path / "growth.json").read_text()) == result
    assert "exhaustive" in growth.table(result)


def test_a_large_gallery_is_made_of_a_small_index_opened_and_searched(
    index_path: Path, weights: Path, tmp_path: Path
) -> None:
    sketches = large.sketches(2, tmp_path)
    for count, inverted in ((60, False), (70, True)):
        place = tmp_path / f"{count}"
        large_index.write_large_index(place, index_path, count, inverted=inverted)
        row = measure(Asked(place=place, weights=weights, sketches=sketches, made_seconds=1))
        assert (row.photos, row.inverted, row.found) == (count, inverted, 1)
        assert row.p50_ms["total"] >= row.p50_ms["clusters"] > 0
    # All but the hashes, which nobody computed, is as in an index that was built.
    assert {sentence.rpartition(" does not have the content")[1] for sentence in verify(place)} == {
        " does not have the content"
    }


def test_shards_of_a_made_gallery_have_its_photos_and_its_ids(
    index_path: Path, matcher: Matcher, tmp_path: Path
) -> None:
    (one,) = write_shards(tmp_path, index_path, 61, 1)
    opened = [open_index(place, matcher) for place in (one, *write_shards(tmp_path, index_path, 61, 4))]
    whole, *shards = ((np.sort(index.ids), index.all_ret().numpy()) for index in opened)
    assert [len(ids) for ids, _ in shards] == [15, 15, 15, 16]
    assert np.array_equal(np.concatenate([ids for ids, _ in shards]), whole[0])
    of_shards = np.concatenate([ret for _, ret in shards])
    assert np.array_equal(np.unique(of_shards, axis=0), np.unique(whole[1], axis=0))
    for index in opened:
        index.close()


def test_the_command_writes_its_tables(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--output", str(tmp_path), "--weights", str(weights), "--drawn", "30", "--queries", "1"]
    assert two_stage.main(command) == 0
    assert two_stage.EXHAUSTIVE in capsys.readouterr().out
    result = two_stage.Result.model_validate_json((tmp_path / "two_stage.json").read_text())
    assert (result.photos, result.drawn, len(result.all_queries)) == (30, True, len(two_stage.WAYS) - 1)
    head = result.circumstances
    assert (head.device, head.quick) == ("cpu", False)
    told = ["--output", "build/bench", *command[2:]]
    assert head.command == f"python -m tests.benchmarks.two_stage {shlex.join(told)}"


@pytest.mark.parametrize("benchmark", [growth, scoring, two_stage])
def test_a_checkpoint_or_a_device_that_is_not_there_is_told(
    benchmark: Any, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [(str(tmp_path / "none"), "cpu", "none")]
    if not torch.cuda.is_available():
        cases.append((str(weights), "cuda", "use cpu"))
    for path, device, said in cases:
        with pytest.raises(SystemExit) as ended:
            benchmark.main(["--output", str(tmp_path), "--weights", path, "--device", device])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_indexing_is_measured_whole_and_in_parts(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(indexing, "MEGAPIXELS", (640, 480))
    monkeypatch.setattr(indexing, "clip_tower", lambda: nn.Sequential(nn.AvgPool2d(32), nn.Flatten()))
    released = dataclasses.replace(released_config(), image_size=32, width=32, depth=1, heads=2, select_after=())
    monkeypatch.setattr(indexing, "released_network", lambda: Network(released).requires_grad_(False).eval())
    # One build in a process of its own will do.
    peak = indexing.peak_mib
    monkeypatch.setattr(
        indexing, "peak_mib", lambda folder, file: peak(folder, file) if folder.name == "small" else None
    )
    threads = torch.get_num_threads()
    assert indexing.main(["--output", str(tmp_path), "--weights", str(weights), "--quick"]) == 0
    assert torch.get_num_threads() == threads
    result = indexing.Result.model_validate_json((tmp_path / "indexing.json").read_text())
    assert [row.photos for row in result.rows] == [16, 16, 40, 40, 40, 16, 16]
    assert (result.rounds, result.real, result.rows[0].name, result.rows[0].ratio) == (2, False, indexing.RELEASED, 1)
    assert {row.name for row in result.rows if row.peak_mib} <= {"tiny-random, whole build"}
    for row in result.rows:
        assert row.ratio == pytest.approx(row.photos_per_second / result.rows[0].photos_per_second)
    assert "whole build" in capsys.readouterr().out


def test_further_parts_of_a_query_are_timed_beside_the_sketch_alone(server: Served, sketch: bytes) -> None:
    result = query_parts.measure(server.url, [sketch, sketch], 2, Call("", quick=True))
    assert (result.photos, result.searches) == (PHOTOS, 4)
    # This network has no vocabulary, so no word is asked for.
    names = ["the sketch alone", "and kinds instead of photos", "and 5 liked photos", "and a photo that is not liked"]
    assert [row.name for row in result.rows] == names
    alone = result.rows[0].median_ms
    assert alone > 0
    assert [row.ratio for row in result.rows] == [row.median_ms / alone for row in result.rows]
    told = query_parts.table(result).splitlines()
    assert [line[:32].strip() for line in told[2:-1]] == names

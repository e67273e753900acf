"""The tables and plots of docs/figures.md, from results as the benchmarks write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.evaluation.resampling import Interval
from tests.benchmarks import (
    growth,
    indexing,
    large,
    large_search,
    pen_up,
    query_parts,
    scoring,
    sharded_result,
    two_stage,
)
from tests.benchmarks.circumstances import BenchmarkResult
from tests.benchmarks.load_result import Answers, Clients, Level
from tests.benchmarks.load_result import Result as LoadResult
from tests.benchmarks.report import PARTS, main
from tests.made_results import gallery, head, sharded, side


def answers(p99: float | None = 30.2) -> Answers:
    return Answers(
        answered=1234, refused=5, failed=0, per_second=11.04, p50_ms=94.4, p95_ms=1254.7, p99_ms=p99, grown_mib=0.25
    )


def way(name: str, milliseconds: float, agreement: float) -> two_stage.Row:
    return two_stage.Row(
        way=name,
        queries=180,
        pairs=200.0,
        pairs_ratio=58.57,
        milliseconds=milliseconds,
        time_ratio=13.04,
        figures=dict.fromkeys(two_stage.FIGURES, 0.1234),
        differences=dict.fromkeys(two_stage.FIGURES, Interval(-0.0021, -0.005, 0.0012)),
        agreement=agreement,
    )


def server(p50: float, per_second: float) -> sharded_result.Side:
    return side(p50, dict.fromkeys(sharded_result.STAGES, p50 / 10), per_second)


def measured() -> dict[str, BenchmarkResult]:
    """One result of every benchmark, by the name of its document."""
    scores = [
        scoring.Row(part="score", name="released computation", dtype="float32", microseconds=26765, ratio=1, rounds=15),
        scoring.Row(part="score", name="zse", dtype="bfloat16", microseconds=216.1, ratio=123.9, rounds=15),
        scoring.Row(part="encode", name="zse", dtype="float32", microseconds=12830, ratio=18.3, rounds=5),
    ]
    ways = [way(name, 3.0 + number, 0.5 + number / 40) for number, name in enumerate(two_stage.WAYS)]
    points = [
        growth.Point(way=name, photos=photos, clusters=photos // 32, pairs=photos, milliseconds=photos / 10)
        for photos in (1000, 64000)
        for name in growth.WAYS
        if name != "exhaustive" or photos == 1000
    ]
    parts, slow_parts = (dict.fromkeys(large_search.PARTS, milliseconds) for milliseconds in (12.34, 23.45))
    galleries = [gallery(photos, parts, slow_parts) for photos in (1000, 1_000_000)]
    room = [growth.Room(photos=photos, disk_mib=photos / 64, memory_mib=photos / 640) for photos in (1000, 64000)]
    return {
        "scoring": scoring.Result(
            circumstances=head("scoring"),
            compared=3200,
            differences=[scoring.Difference(dtype="bfloat16", score=0.000149, logit=0.012)],
            rows=scores,
            chunks=[scoring.ChunkTime(pairs=8, microseconds=254.4), scoring.ChunkTime(pairs=32, microseconds=216.1)],
        ),
        "two_stage": two_stage.Result(
            circumstances=head("two_stage"),
            drawn=False,
            photos=11700,
            clusters=108,
            embedder="ret",
            all_queries=ways,
            unseen_queries=ways[:1],
        ),
        "large": large.Result(circumstances=head("large"), source=3120, queries=50, rows=galleries),
        "sharded": sharded(
            server(88.8, 0).alone,
            [
                sharded_result.Row(
                    shards=shards,
                    threads=2 // shards,
                    plain=server(90.0, 11.04),
                    by_ray=server(90.0 + 20.0 * shards, 5.52),
                    difference=0.00021 * shards,
                )
                for shards in (1, 2)
            ],
        ),
        "growth": growth.Result(circumstances=head("growth"), points=points, room=room, peak_mib=2048.4),
        "indexing": indexing.Result(
            circumstances=head("indexing"),
            real=True,
            rows=[
                indexing.Row(name="released encoder", photos=32, photos_per_second=41.23, ratio=1),
                indexing.Row(name="whole build", photos=400, photos_per_second=61.8, ratio=1.5, peak_mib=912.4),
            ],
        ),
        "load": LoadResult(
            circumstances=head("load"),
            photos=102,
            queue=16,
            seconds=30,
            capacity=11.04,
            clients=[Clients(clients=16, answers=answers())],
            levels=[Level(share=2.0, offered=22.75, answers=answers(p99=None))],
        ),
        "pen_up": pen_up.Result(
            circumstances=head("pen_up"),
            lifts=[
                pen_up.Lift(view=view, pause_ms=212, request_ms=request, show_ms=40)
                for view, request in zip(pen_up.VIEWS, (108.5, 118.5), strict=True)
            ]
            * 20,
        ),
        "query_parts": query_parts.Result(
            circumstances=head("query_parts"),
            photos=102,
            searches=600,
            rows=[query_parts.Row(name="and a word", median_ms=81.25, p95_ms=94.4, ratio=1.204)],
        ),
    }


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of results of all benchmarks, and a page with a block for each part."""
    results, page = tmp_path / "bench", tmp_path / "figures.md"
    results.mkdir()
    for name, result in measured().items():
        result.save(results / f"{name}.json")
    blocks = "\n".join(f"<!-- begin: {part.name} -->\nold\n<!-- end: {part.name} -->\n" for part in PARTS)
    page.write_text(f"# A\n\n{blocks}\nThe end.\n", encoding="utf-8")
    return results, page


def test_every_part_is_published_with_its_plot_and_the_same_results_change_nothing_more(
    place: tuple[Path, Path],
) -> None:
    pytest.importorskip("matplotlib", reason="the extra train")
    results, page = place
    assert main([str(results), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "\nold\n" not in text
    for line in (
        "|  | zse, bfloat16 | 216 µs | 124x |",
        "| clusters, nprobe 1 | 200 (59x fewer) | 4.0 ms (13.0x faster) "
        + "| 0.123; -0.002 (-0.005 to +0.001) " * 3
        + "| 0.53 |",
        "| 64,000 (2,000) |  | 6,400 ms | 6,400 ms | 6,400 ms | 1,000 MiB | 100 MiB |",
        "| whole build | 61.8 | 1.5x | 912 MiB |",
        "| 16 | 1,234 | 11.0 | 5 | 0 | 94.4 ms | 1,255 ms | 30.2 ms | 0.2 MiB |",
        "| 2.0x the capacity | 22.8 | 1,234 | 11.0 | 5 | 0 | 94.4 ms | 1,255 ms |  | 0.2 MiB |",
        "| from the end of the stroke to its photos | 360 ms | 360 ms | 370 ms | 370 ms |",
        "| and a word | 81.2 ms | 94.4 ms | 1.20x |",
        "![Time a query over photos](growth.svg)",
        "| 1,000,000 | inverted file | 12.3 ms | 12.3 ms | 12.3 ms | 12.3 ms | 12.3 ms | 23.4 ms | 34.6 ms | 0.991 "
        "| 0.32 s | 100 MiB | 200 MiB | 15,725 MiB |",
        "| one index, without Ray | 2 | 90.0 ms | 180 ms | 1.00x | 9.0 ms | 9.0 ms | 9.0 ms | 9.0 ms | 11.0 | 1.00x |",
        "| 2 shards by Ray | 1 | 130 ms | 260 ms | 1.44x | 13.0 ms | 13.0 ms | 13.0 ms | 13.0 ms | 5.5 | 0.50x |",
        "Ray itself costs a query 20.0 ms: the median of one shard by Ray, less that of one index. While no Ray runs "
        "on the machine, one index answers in 88.8 ms (p95 178 ms). Scores with and without Ray differ by at most "
        "0.00042.",
        "A processor, 2 cores; cpu, 2 threads, bfloat16; PyTorch 2.14.1; 2026-11-20: "
        "`python -m tests.benchmarks.pen_up --output build/bench`",
    ):
        assert f"\n{line}\n" in text, line
    written = {path.name: path.read_bytes() for path in page.parent.iterdir() if path.is_file()}
    assert written.keys() == {"figures.md", "growth.svg", "recall.svg"}
    assert main([str(results), "--page", str(page)]) == 0
    assert {name: (page.parent / name).read_bytes() for name in written} == written


def test_a_part_that_was_not_measured_is_left_as_it_is(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = place
    for name in measured().keys() - {"pen_up"}:
        (results / f"{name}.json").unlink()
    assert main([str(results), "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8").count("\nold\n") == len(PARTS) - 1
    assert "Growth: left as it is, there is no " in capsys.readouterr().out


def test_results_of_quick_and_stopped_runs_and_of_other_versions_are_refused(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = place
    written, document = page.read_bytes(), results / "growth.json"
    result = measured()["growth"]
    for changed, told in (
        (result.model_copy(update={"finished": False}), "stopped; measure it again"),
        (result.model_copy(update={"circumstances": head("growth", quick=True)}), "without --quick"),
    ):
        changed.save(document)
        assert main([str(results), "--page", str(page)]) == 2
        assert told in capsys.readouterr().err
    document.write_text('{"points": []}', encoding="utf-8")
    assert main([str(results), "--page", str(page)]) == 2
    assert "growth.json is not as this version writes it" in capsys.readouterr().err
    assert page.read_bytes() == written


def test_a_page_without_a_place_and_a_folder_without_results_are_told(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = place
    page.write_text("# Nothing\n", encoding="utf-8")
    assert main([str(results), "--page", str(page)]) == 2
    assert "no block <!-- begin: " in capsys.readouterr().err
    assert sorted(path.name for path in page.parent.iterdir()) == ["bench", "figures.md"]
    assert main([str(page.parent)]) == 2
    assert "there is no result" in capsys.readouterr().err

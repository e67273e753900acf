"""The README's tables and plots, of results as the benchmarks write them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model.evaluation.resampling import Interval
from tests.benchmarks import growth, indexing, pen_up, scoring, two_stage
from tests.benchmarks.circumstances import Circumstances, Measurement
from tests.benchmarks.cluster_ranking import BUDGETS, NPROBES, SINGLY, Share
from tests.benchmarks.load_result import Answers, Clients, Level
from tests.benchmarks.load_result import Result as LoadResult
from tests.benchmarks.report import PARTS, main, publish, read

README = Path(__file__).parents[1] / "README.md"


def head(name: str, *, quick: bool = False) -> Circumstances:
    return Circumstances(
        network="zse",
        machine="A processor, 2 cores",
        device="cpu",
        threads=2,
        dtype="bfloat16",
        python="3.11.7",
        torch="2.14.1",
        date="2026-11-20",
        command=f"python -m tests.benchmarks.{name} --output build/bench",
        quick=quick,
    )


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


def measured() -> dict[str, Measurement]:
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
            clusters_found={
                "[Ret], mean": Share(0, dict.fromkeys(NPROBES, 0.25), dict.fromkeys(BUDGETS, 0.5)),
                SINGLY: Share(0, {}, dict.fromkeys(BUDGETS, 0.75)),
            },
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
            circumstances=head("pen_up"), lifts=[pen_up.Lift(pause_ms=212, request_ms=108.5, show_ms=40)] * 20
        ),
    }


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of results of all benchmarks, and a README with a place for each part."""
    results, readme = tmp_path / "bench", tmp_path / "README.md"
    results.mkdir()
    for name, result in measured().items():
        result.save(results / f"{name}.json")
    text = "\n".join(
        f"**{part.name}.** Said by hand.\n\n<!-- bench: {part.name} -->\nold\n<!-- end -->\n" for part in PARTS
    )
    readme.write_text(f"# A\n\n{text}\nThe end.\n", encoding="utf-8")
    return results, readme


def test_every_part_is_published_where_its_markers_are(place: tuple[Path, Path]) -> None:
    results, readme = place
    assert main([str(results), "--readme", str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert "\nold\n" not in text
    assert text.startswith("# A\n\n**Scoring.** Said by hand.\n\n<!-- bench: Scoring -->\n| ")
    assert text.endswith("<!-- end -->\n\nThe end.\n")
    for line in (
        "| a pair | released computation, float32 | 26.8 ms | 1.0x |",
        "|  | zse, bfloat16 | 216 µs | 124x |",
        "| a picture | zse, float32 | 12.8 ms | 18.3x |",
        "A pair of zse in bfloat16, by how many are scored at once: 8: 254 µs, 32: 216 µs.",
        "What a lower precision moves a score of zse, 3,200 pairs: bfloat16 by at most 0.00015.",
        "11,700 photos in 108 clusters by ret; differences to scoring all with 95% intervals, by resampling queries.",
        "| clusters, nprobe 1 | 200 (59x fewer) | 4.0 ms (13.0x faster) "
        + "| 0.123; -0.002 (-0.005 to +0.001) " * 3
        + "| 0.53 |",
        "Unseen classes: 180 queries.",
        "| exhaustive | 200 | 3.0 ms | 0.123 | 0.123 | 0.123 | 0.50 |",
        "| [Ret], mean | 0 " + "| 0.25 " * len(NPROBES) + "| 0.50 " * len(BUDGETS) + "|",
        f"| {SINGLY} | 0 " + "|  " * len(NPROBES) + "| 0.75 " * len(BUDGETS) + "|",
        "| 1,000 (31) | 100 ms | 100 ms | 100 ms | 100 ms | 16 MiB | 2 MiB |",
        "| 64,000 (2,000) |  | 6,400 ms | 6,400 ms | 6,400 ms | 1,000 MiB | 100 MiB |",
        "| released encoder | 41.2 | 1.0x |  |",
        "| whole build | 61.8 | 1.5x | 912 MiB |",
        "| 16 | 1,234 | 11.0 | 5 | 0 | 94.4 ms | 1,255 ms | 30.2 ms | 0.2 MiB |",
        "| 2.0x the capacity | 22.8 | 1,234 | 11.0 | 5 | 0 | 94.4 ms | 1,255 ms |  | 0.2 MiB |",
        "| from the end of the stroke to its photos | 360 ms | 360 ms |",
        "A processor, 2 cores; cpu, 2 threads, bfloat16; PyTorch 2.14.1; 2026-11-20: "
        "`python -m tests.benchmarks.pen_up --output build/bench`",
        "A processor, 2 cores; cpu (at most 2,048 MiB of its memory), 2 threads, bfloat16; PyTorch 2.14.1; 2026-11-20: "
        "`python -m tests.benchmarks.growth --output build/bench`",
    ):
        assert f"\n{line}\n" in text, line
    assert text.count("Said by hand.") == len(PARTS)
    # The same results change nothing more.
    assert main([str(results), "--readme", str(readme)]) == 0
    assert readme.read_text(encoding="utf-8") == text


def test_a_part_that_was_not_measured_is_left_as_it_is(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, readme = place
    (results / "pen_up.json").unlink()
    assert main([str(results), "--readme", str(readme)]) == 0
    assert "<!-- bench: Drawing -->\nold\n<!-- end -->" in readme.read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith("Drawing: left as it is, there is no ")


def test_plots_are_small_and_the_same_bytes_each_time(place: tuple[Path, Path]) -> None:
    pytest.importorskip("matplotlib", reason="the extra train")
    results, readme = place
    pictures = [readme.parent / "docs" / name for name in ("growth.svg", "recall.svg")]
    drawn = []
    for _ in range(2):
        assert main([str(results), "--readme", str(readme)]) == 0
        drawn.append([picture.read_bytes() for picture in pictures])
    assert drawn[0] == drawn[1]
    assert all(b"<svg" in svg and b"dc:date" not in svg and len(svg) < 30_000 for svg in drawn[0])
    text = readme.read_text(encoding="utf-8")
    assert "\n\n![Time a query over photos](docs/growth.svg)\n\nA processor" in text
    assert "](docs/recall.svg)\n" in text


def test_without_matplotlib_plots_are_left_as_they_are_and_that_is_said(
    place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, readme = place
    (readme.parent / "docs").mkdir()
    (readme.parent / "docs" / "growth.svg").write_text("as it was", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    publish(readme, read(results, quick=False))
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert (readme.parent / "docs" / "growth.svg").read_text(encoding="utf-8") == "as it was"
    text = readme.read_text(encoding="utf-8")
    assert "docs/growth.svg" in text
    assert "docs/recall.svg" not in text


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("<!-- bench: Growth -->\n", "", "0 markers <!-- bench: Growth -->"),
        ("<!-- bench: Growth -->\n", "<!-- bench: Growth -->\n" * 2, "2 markers <!-- bench: Growth -->"),
        ("<!-- bench: Growth -->\n", "<!-- bench: Shrinking -->\n", "0 markers <!-- bench: Growth -->"),
        ("# A\n", "<!-- bench: Other -->\n<!-- end -->\n", "<!-- bench: Other -->, but no benchmark of that name"),
        ("<!-- end -->\n\n**Growth.**", "\n\n**Growth.**", "do not take turns"),
    ],
)
def test_a_marker_that_is_missing_or_doubled_is_named_and_nothing_is_written(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str], before: str, after: str, told: str
) -> None:
    results, readme = place
    text = readme.read_text(encoding="utf-8")
    assert before in text
    readme.write_text(text.replace(before, after), encoding="utf-8")
    written = readme.read_bytes()
    assert main([str(results), "--readme", str(readme)]) == 2
    assert told in capsys.readouterr().err
    assert readme.read_bytes() == written
    assert sorted(path.name for path in readme.parent.iterdir()) == ["README.md", "bench"]


def test_results_of_quick_and_stopped_runs_and_of_other_versions_are_refused(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, readme = place
    written, document = readme.read_bytes(), results / "growth.json"
    result = measured()["growth"]
    for changed, told in (
        (result.model_copy(update={"finished": False}), "stopped; measure it again"),
        (result.model_copy(update={"circumstances": head("growth", quick=True)}), "without --quick"),
    ):
        changed.save(document)
        assert main([str(results), "--readme", str(readme)]) == 2
        assert told in capsys.readouterr().err
    document.write_text('{"points": []}', encoding="utf-8")
    assert main([str(results), "--readme", str(readme)]) == 2
    assert "growth.json is not as this version writes it" in capsys.readouterr().err
    assert readme.read_bytes() == written


def test_quick_results_can_be_looked_at_on_the_terminal(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, readme = place
    written = readme.read_bytes()
    measured()["growth"].model_copy(update={"circumstances": head("growth", quick=True)}).save(results / "growth.json")
    assert main([str(results), "--quick"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Scoring\n\n|  | way |")
    assert "| 64,000 (2,000) |  | 6,400 ms |" in out
    assert readme.read_bytes() == written
    assert main([str(results), "--quick", "--readme", str(readme)]) == 0
    assert "6,400 ms" in readme.read_text(encoding="utf-8")


def test_the_readme_has_a_place_for_every_part(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_bytes(README.read_bytes())
    publish(copy, {})
    assert copy.read_bytes() == README.read_bytes()


def test_a_folder_without_results_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "there is no result" in capsys.readouterr().err

"""The formulas of docs/scale.md, and its tables made of results as the benches write them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from model.network import preset
from model.ranking import SHORTLIST
from service.commands.serving_shards import SEARCHES_AT_ONCE
from service.search.plan import RERANK
from service.sharding.on_ray import ENCODERS
from tests import scale
from tests.benchmarks import indexing, large, sharded_result
from tests.benchmarks.circumstances import BenchmarkResult
from tests.documents import CHECKOUT, read
from tests.made_results import SHARD, gallery, head, sharded, side
from tests.scale_report import NEEDED, main

SERVING = scale.Serving(http_ms=2.0, ray_ms=10.0, shard_ms=3.0)


def test_a_gallery_that_fits_has_one_shard_and_one_machine_and_larger_ones_a_machine_more_than_shards() -> None:
    assert [scale.shards(photos, SHARD) for photos in (1, 1000, 1001, 5000)] == [1, 1, 2, 5]
    assert [scale.machines(photos, SHARD) for photos in (1, 1000, 1001, 5000)] == [1, 1, 3, 6]


def test_the_disk_grows_with_the_photos_alone() -> None:
    assert scale.photo_bytes((100, 5000.0), (300, 9000.0)) == 20
    assert scale.disk(5000, SHARD) == 5000 * 16_000


def test_memory_of_ingress_and_driver_grows_with_photos_and_clusters() -> None:
    assert scale.ids_kept(1000) == 12_000
    assert scale.searches_kept(1000) == 4000 * SEARCHES_AT_ONCE
    assert scale.clusters_kept(5000, SHARD) == 5 * 30 * (192 * 4 + 8)
    assert scale.listed(10**8) == 200e9
    # No bench measures it, so page and formula have to say the same.
    assert "some 2 KB for each, so 200 GB for a hundred million" in read(CHECKOUT / "docs" / "many-machines.md")


def test_what_is_gathered_grows_with_the_shards_and_much_less_where_ret_comes_last() -> None:
    assert scale.gathered(1000, SHARD) == SHORTLIST * 780
    assert scale.gathered(5000, SHARD) == 5 * scale.gathered(1000, SHARD)
    assert scale.gathered_in_two(5000, SHARD) == SHORTLIST * (5 * 12 + 768)
    assert scale.tokens_read(SHARD) == RERANK * 16_000


def test_ids_and_the_network_and_builds_are_straight_lines() -> None:
    assert scale.ids_used(2**31 - 1) == 1
    assert scale.wire_ms(1.25e9, 10) == 1000
    assert scale.build_hours(7_200_000, 100, 2) == 10


def test_a_query_on_one_machine_has_nothing_of_ray_and_each_further_shard_adds_as_much() -> None:
    one, two, five = (scale.query_ms(photos, SHARD, SERVING, 10) for photos in (1000, 2000, 5000))
    assert one == {"encode": 20, "choose": 4, "score": 30, "diffuse": 6, "HTTP": 2}
    assert two == {**one, "Ray, with one shard": 10, "further shards": 3, "network": pytest.approx(1.248)}
    assert five == {**one, "Ray, with one shard": 10, "further shards": 12, "network": pytest.approx(3.12)}
    assert scale.further_shard_ms(10, 19, 4) == 3


def test_what_bears_the_fewest_queries_depends_on_how_many_shards_there_are() -> None:
    assert scale.rates(1000, SHARD, SERVING, 10) == {"the machine": pytest.approx(1000 / 62)}
    assert scale.rates(5000, SHARD, SERVING, 10) == {
        "the shards": 100,
        "the encoders": 50 * ENCODERS,
        "the ingress": pytest.approx(1000 / 30),
        "the network of the ingress": pytest.approx(1000 / 3.12),
    }
    heavy = dataclasses.replace(SHARD, choose_ms=400.0)
    slow = scale.rates(2000, heavy, SERVING, 10)
    assert min(slow, key=slow.__getitem__) == "the shards"


PARTS_MS = {"encode": 20.0, "clusters": 10.0, "photos": 30.0, "diffusion": 6.0, "total": 66.0}
STAGES_MS = {"prepare": 1.0, "encode": 20.0, "clusters": 5.0, "photos": 30.0, "diffusion": 6.0, "total": 62.0}


def measured() -> dict[str, BenchmarkResult]:
    """One result of every bench that is needed, by its name."""
    return {
        "large": large.Result(
            circumstances=head("large"),
            source=3120,
            queries=50,
            rows=[gallery(photos, PARTS_MS, PARTS_MS) for photos in (1_000_000, 100_000)],
        ),
        "sharded": sharded(
            side(64, STAGES_MS, 10).alone,
            [
                sharded_result.Row(
                    shards=shards,
                    threads=1,
                    plain=side(64, STAGES_MS, 10),
                    by_ray=side(p50, STAGES_MS, 10),
                    difference=0,
                )
                for shards, p50 in ((1, 74), (2, 76), (4, 83))
            ],
        ),
        "indexing": indexing.Result(
            circumstances=head("indexing"),
            real=True,
            rows=[
                indexing.Row(name="zse-ti16, whole build", photos=400, photos_per_second=100, ratio=1, peak_mib=900.4),
                indexing.Row(name="zse-ti16, whole build of 12 MP JPEGs", photos=32, photos_per_second=40, ratio=0.4),
            ],
        ),
    }


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with results of the benches that are needed, and a copy of the page."""
    results, page = tmp_path / "bench", tmp_path / "scale.md"
    results.mkdir()
    for name, result in measured().items():
        result.save(results / f"{name}.json")
    page.write_text(read(CHECKOUT / "docs" / "scale.md"), encoding="utf-8")
    return results, page


def test_the_tables_are_computed_from_what_the_benches_have_measured(place: tuple[Path, Path]) -> None:
    results, page = place
    assert main([str(results), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for line in (
        "A shard has 1,000,000 photos, as the largest gallery that was measured. Each photo takes 16 KiB on the disk.",
        "| photos | a million | a hundred million | a billion |",
        "| shards | 1 | 100 | 1,000 |",
        "| machines that search | 1 | 101 | 1,001 |",
        "| index on disk | 15 GiB | 1.5 TiB | 15 TiB |",
        "| memory of the ingress, beside the network | none | 4.2 GiB | 42 GiB |",
        "| memory of a worker that builds | 900 MiB | 900 MiB | 900 MiB |",
        "| building, small photos, by one machine | 2.8 h | 278 h | 2,778 h |",
        "| by as many machines as shards | 2.8 h | 2.8 h | 2.8 h |",
        "| building, photos of 12 megapixels, by one machine | 6.9 h | 694 h | 6,944 h |",
        "| a query alone | 68 ms | 437 ms | 3,699 ms |",
        "| - Ray itself | none | 10 ms | 10 ms |",
        "| - what further shards add to the gather | none | 297 ms | 2,997 ms |",
        "| queries a second | 15 | 3.2 | 0.33 |",
        "| what limits them: the next wall | the machine | the ingress | the ingress |",
        "| all of this on GPUs | not measured | not measured | not measured |",
        "| gather: what shards send the ingress for a query | none | 74 MiB | 744 MiB |",
        "| token reads of a query, over all shards, at most | 1.5 MiB in 96 places | 1.5 MiB in 96 places "
        "| 1.5 MiB in 96 places |",
        "| ids given, of those there are | 0.05% | 4.66% | 46.57% |",
        "- Shards: A processor, 2 cores; cpu, 2 threads, bfloat16; PyTorch 2.14.1; 2026-11-20: "
        "`python -m tests.benchmarks.sharded --output build/bench`",
    ):
        assert f"\n{line}\n" in text, line
    assert "Not measured yet" not in text
    assert main([str(results), "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("bench", "unknown", "known"), [("large", "shards", "- HTTP"), ("sharded", "a query alone", "- score")]
)
def test_a_bench_that_has_not_run_is_named_and_its_figures_are_left_out(
    place: tuple[Path, Path], bench: str, unknown: str, known: str
) -> None:
    results, page = place
    (results / f"{bench}.json").unlink()
    assert main([str(results), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert f"| {unknown} | not measured | not measured | not measured |" in text
    assert "| building, small photos, by one machine | 2.8 h | 278 h | 2,778 h |" in text
    assert f"\n| {known} | not measured |" not in text
    command = f"python -m tests.benchmarks.{bench} --output build/bench"
    assert text.count(f"Not measured yet, so that figures are missing: `{command}`.") == 2
    assert command in NEEDED.values()


def test_one_gallery_is_too_few_and_an_unknown_network_is_told(
    place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = place
    before = page.read_bytes()
    result = measured()["large"]
    assert isinstance(result, large.Result)
    result.model_copy(update={"circumstances": head("large", network="other")}).save(results / "large.json")
    assert main([str(results), "--page", str(page)]) == 2
    assert "there is no preset 'other'" in capsys.readouterr().err
    assert page.read_bytes() == before
    result.model_copy(update={"rows": result.rows[:1]}).save(results / "large.json")
    assert main([str(results)]) == 0
    assert "| shards | not measured |" in capsys.readouterr().out


def test_the_width_of_ret_is_that_of_the_network() -> None:
    assert preset("zse-ti16").width == SHARD.width

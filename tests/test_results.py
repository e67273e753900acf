from pathlib import Path

import pytest

from tests.benchmarks import scale
from tests.benchmarks.results import Result, Row, main, read_blocks
from tests.documents import CHECKOUT, read

PAGE = """# Title
<!-- begin: One -->
old
lines
<!-- end: One -->
by hand
<!-- begin: Two -->
<!-- end: Two -->
"""
ONE = Result(
    name="One",
    command="python -m one",
    machine="A processor",
    date="2026-11-20",
    said="Some photos.",
    rows=[
        {"way": "first", "photos": 11700, "time (ms)": 90.04},
        {"way": "second", "share": 0.12345, "time (ms)": None},
    ],
)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    results, page = tmp_path / "results", tmp_path / "page.md"
    results.mkdir()
    ONE.save(results / "one.json")
    page.write_text(PAGE, encoding="utf-8")
    return results, page


def test_a_result_gets_into_its_block_and_all_else_stays(place: tuple[Path, Path]) -> None:
    results, page = place
    assert main([str(results), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert read_blocks(text) == {
        "One": "Some photos.\n\n| way | photos | time (ms) | share |\n|---|---|---|---|\n"
        "| first | 11,700 | 90.0 |  |\n| second |  |  | 0.123 |\n\nA processor; 2026-11-20: `python -m one`",
        "Two": "",
    }
    assert "\nby hand\n" in text
    assert main([str(results), "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (ONE.model_copy(update={"finished": False}).model_dump_json(), "stopped; measure it again"),
        (ONE.model_copy(update={"quick": True}).model_dump_json(), "without --quick"),
        ('{"points": []}', "one.json is not as this version writes it"),
        (None, "there is no result"),
        (ONE.model_copy(update={"name": "Three"}).model_dump_json(), "the page has no block from <!-- begin: Three"),
    ],
    ids=["stopped", "quick", "of another version", "none", "of no block"],
)
def test_broken_results_and_results_without_a_block_are_refused(
    place: tuple[Path, Path], written: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = place
    if written is None:
        (results / "one.json").unlink()
    else:
        (results / "one.json").write_text(written, encoding="utf-8")
    assert main([str(results), "--page", str(page)]) == 2
    assert told in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == PAGE


def measured() -> dict[str, Result]:
    """Results of the benches that docs/scale.md is computed from."""
    stages: Row = {"encode (ms)": 20.0, "choose (ms)": 10.0, "score (ms)": 30.0, "diffuse (ms)": 6.0}
    galleries: list[Row] = [
        {"photos": photos, "clusters": photos // 1000, "index on disk (MiB)": 100 + photos / 64, **stages}
        | {"whole process (MiB)": 700.0}
        for photos in (100_000, 1_000_000)
    ]
    times = {"one index beside 1": 64, "1 by Ray": 74}
    shards: list[Row] = [
        {"gallery": name, "a query alone (ms)": float(ms), "all stages (ms)": 62.0, **stages}
        for name, ms in times.items()
    ]
    builds: list[Row] = [
        {"way": "zse-ti16, whole build", "photos a second": 100.0, "memory (MiB)": 900.4},
        {"way": "zse-ti16, whole build of 12 MP JPEGs", "photos a second": 40.0, "memory (MiB)": None},
    ]
    ingress: list[Row] = [
        {"shards asked": asked, "CPU of the ingress (ms)": 5 + 0.25 * asked, "answered (KiB)": 400.0 + asked}
        for asked in (1, 64, 128)
    ]
    asked: list[Row] = [{"shards": 100, "asked": 32.5}]
    rows = {"Large galleries": galleries, "Shards": shards, "Ingress": ingress, "Indexing": builds}
    rows["Shards asked"] = asked
    return {name: Result(name=name, command=f"python -m {name}", rows=of_one) for name, of_one in rows.items()}


def test_costs_of_large_galleries_are_computed_from_measurements_of_the_benches(tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    page.write_text(read(CHECKOUT / "docs" / "scale.md"), encoding="utf-8")
    for name, result in measured().items():
        result.save(tmp_path / f"{name}.json")
    assert scale.main([str(tmp_path), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for line in (
        "A shard has 1,000,000 photos, as the largest gallery that was measured. Each photo takes 16 KiB on the disk.",
        "| machines that search | 1 | 101 | 1,001 |",
        "| index on disk | 15 GiB | 1.5 TiB | 15 TiB |",
        "| memory of the ingress, beside the network | none | 1.1 GiB | 11 GiB |",
        "| their rent for a month (dollars) | 40.0 | 4,040 | 40,040 |",
        "| building on as many machines as shards, small photos (h) | 2.78 | 2.78 | 2.78 |",
        # Encode, choose, score, diffuse and HTTP; with shards the ingress, Ray and the network, too.
        "| of them asked, on average | 1.00 | 32.5 | 64.0 |",
        "| a query alone (ms) | 68.0 | 75.5 | 83.4 |",
        "| the same, with 4 ingresses | none | 200 | 174 |",
        "| what limits them: the next wall | the machine | the encoder of the ingress | the ingress |",
        "| what shards send the ingress for a query | none | 432 KiB | 464 KiB |",
        "| ids given, of those there are | 0.05% | 4.66% | 46.57% |",
    ):
        assert f"\n{line}\n" in text, line
    # No bench measures it, so page and formula have to say the same.
    assert f"{scale.PLACED} bytes of memory for each photo" in read(CHECKOUT / "docs" / "many-machines.md")
    assert scale.driver_bytes(10**8, 192) < 4 * 2**30

"""Benches measure what they say, and their results get into their blocks of a page."""

from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import SecretStr
from torch import nn

from sketch_search import model
from sketch_search.indexer import BuildRequest, build, open_index, verify
from sketch_search.model.engine import default_checkpoint
from sketch_search.model.matcher import Matcher
from sketch_search.model.training.corpus import DATA_VARIABLE
from sketch_search.model.training.network import TorchEngine
from sketch_search.model.training.network.zse import Network
from sketch_search.service.settings import Settings
from sketch_search.service.settings import index_path as path_of_index
from tests.benchmarks import clicks, costs, large, peers, pen_up, two_stage
from tests.benchmarks.command import Command
from tests.benchmarks.large_index import write_large_shards
from tests.benchmarks.results import Result, Row, main, read_blocks
from tests.benchmarks.scoring import measure, random_tokens, released_logits, released_tokens
from tests.benchmarks.sharded import sent, write_shards
from tests.indexer.galleries import ids_of
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint, tiny_network
from tests.programs import LONG, run_python
from tests.requirements import needs_browser
from tests.service.served import Served, served


def number(row: Row, column: str) -> float:
    value = row[column]
    assert isinstance(value, int | float), f"{row} has no number for {column!r}"
    return value


@pytest.mark.soak
def test_every_way_is_compared_with_the_exhaustive_search(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--output", str(tmp_path), "--weights", str(weights), "--drawn", "30", "--queries", "1"]
    document = tmp_path / "ways-to-choose-photos.json"
    assert two_stage.main(command) == 0
    result = Result.model_validate_json(document.read_text())
    assert result.markdown() in capsys.readouterr().out
    assert result.command.startswith("python -m tests.benchmarks.two_stage --output build/bench --weights ")
    assert "; cpu, " in result.machine
    compared = {str(row["way"]).removesuffix(" (the default)"): row for row in result.rows}
    assert list(compared) == list(two_stage.WAYS)
    for way in (two_stage.EXHAUSTIVE, two_stage.PLAIN + two_stage.EXHAUSTIVE):
        row = compared[way]
        assert (row["of the exhaustive best 20"], row["times fewer"]) == (1, 1)
        assert number(row, "pairs scored") == 30
        assert 0 <= float(str(row["mAP@100"])) <= 1
    assert number(compared["good"], "pairs scored") <= 30
    assert compared["fast"]["pairs scored"] == compared["good, rerank 32"]["pairs scored"] == 30


@pytest.mark.soak
def test_a_large_gallery_is_made_of_a_small_index_opened_and_searched(
    index_path: Path, weights: Path, default_settings: Settings, tmp_path: Path
) -> None:
    sketches = large.sketches(2, tmp_path)
    # The index of the default network has regions.
    regional = (path_of_index(default_settings), default_checkpoint())
    for count, (source, checkpoint) in ((60, (index_path, weights)), (70, regional)):
        place = tmp_path / f"{count}"
        write_large_shards([place], source, count)
        row = large.measure(place, checkpoint, sketches)
        assert (row["photos"], row["found of the exact first 96"]) == (count, 1)
        assert number(row, "a query (ms)") >= number(row, "choose (ms)") > 0
    # All but the hashes, which nobody computed, is as in an index that was built.
    assert {sentence.rpartition(" has changed since it was written")[1] for sentence in verify(place)} == {
        " has changed since it was written"
    }


@pytest.mark.soak
def test_shards_of_a_made_gallery_have_whole_cells_of_it(index_path: Path, matcher: Matcher, tmp_path: Path) -> None:
    (one,) = write_shards(tmp_path, index_path, 61, 1)
    places = write_shards(tmp_path, index_path, 61, 4)
    with ExitStack() as stack:
        whole, *shards = (stack.enter_context(open_index(place, matcher)) for place in (one, *places))
        assert sorted(np.concatenate([index.ids for index in shards])) == list(range(1, 62))
        cells = {ids_of(index, number).tobytes() for index in shards for number in range(index.cluster_count)}
        assert cells == {ids_of(whole, number).tobytes() for number in range(whole.cluster_count)}
    drawn = large.sketches(2, tmp_path)
    row = sent(places, matcher, [path.read_bytes() for path in drawn])
    assert row["shards asked"] == 4
    assert number(row, "answered (KiB)") > 0
    assert number(row, "sent (KiB)") > 0


@pytest.mark.soak
def test_costs_are_measured_by_the_programs_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(costs, "MEGAPIXELS", (640, 480))
    assert costs.main(["--output", str(tmp_path), "--quick"]) == 0
    result = Result.model_validate_json((tmp_path / "performance.json").read_text())
    rows = {str(row["what"]): row for row in result.rows}
    indexed, searched = "`sketch-search index`, 2 JPEGs of 12 megapixels", "`sketch-search search`, no server"
    for program in (costs.IMPORT, indexed, searched):
        assert number(rows[program], "CPU seconds") > 0
        assert number(rows[program], "MiB of memory") > 20
    for variants in ("three variants", "one variant"):
        assert number(rows[f"a sketch in {variants}, encoded by that server"], "seconds") > 0


@pytest.mark.soak
def test_peers_are_measured_beside_this_project(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", [peer for peer in peers.PEERS if peer.distribution == "faiss-cpu"])
    assert peers.main(["--output", str(tmp_path), "--weights", str(weights), "--quick"]) == 0
    rows = Result.model_validate_json((tmp_path / "peers.json").read_text()).rows
    names = [str(row["way"]).partition(":")[0] for row in rows]
    assert names == [*["this project"] * len(peers.OWN), f"faiss-cpu {version('faiss-cpu')}"]
    for row in rows:
        assert min(number(row, column) for column in ("MB", "a query (ms)")) > 0
        assert 0 < number(row, f"mAP@{peers.RANKED}") <= 1


@needs_browser
@pytest.mark.soak
def test_a_stroke_is_measured_from_its_end_to_the_photos(server: Served) -> None:
    lifts = pen_up.measure(server.url, pen_up.QUICK_DRAWINGS)
    assert [lift.view for lift in lifts] == ["photos", "groups"] * pen_up.QUICK_DRAWINGS
    # The page waits for the hand to rest, a request takes time, and nothing is shown before it was answered.
    assert all(min(lift.pause_ms, lift.request_ms, lift.show_ms) > 0 for lift in lifts)
    (*_, whole) = pen_up.rows(lifts)
    assert whole["groups: median (ms)"] == lifts[1].total_ms


@pytest.mark.soak
@pytest.mark.skipif(not find_spec("locust"), reason="locust is not installed")
def test_a_server_under_load_answers_or_says_when_to_come_back(gallery: Path, weights: Path, tmp_path: Path) -> None:
    place = ["--output", str(tmp_path), "--photos", str(gallery), "--weights", str(weights)]
    # Not imported here: locust replaces parts of the standard library.
    done = run_python("-m", "tests.benchmarks.load", "--quick", *place, seconds=LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    overload = Result.model_validate_json((tmp_path / "overload.json").read_text(encoding="utf-8"))
    patient, *loads = overload.rows
    assert [row["load"] for row in loads] == [f"{share} the capacity" for share in ("0.5x", "1.0x", "2.0x")]
    # So few may always wait.
    assert (patient["load"], patient["429"]) == ("4 clients, one search after the other", 0)
    assert number(patient, "answered") > 0 == patient["failed"]
    assert number(patient, "p50 (ms)") <= number(patient, "p99 (ms)")
    assert sum(number(row, "answered") for row in loads) > 0
    assert overload.markdown() in done.stdout


@pytest.mark.soak
def test_the_command_prints_the_gain_of_each_click(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_class_folders(tmp_path / "data", seeds=range(6), shapes=("star", "house", "circle"))
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors", variants=1)
    matcher = model.load(weights, dtype="float32")
    build(tmp_path / "index", BuildRequest([tmp_path / "data" / "photo"], clusters=4, embedder="ret"), matcher)
    settings = Settings(index=tmp_path / "index", weights=weights, dtype="float32", api_key=SecretStr("secret"))
    with served(settings) as server:
        command = ["--url", server.url, "--api-key", "secret", "--data", str(tmp_path / "data")]
        assert clicks.main([*command, "--per-class", "2", "--k", "4", "--clicks", "2"]) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "| clicks (6 sketches) | pages of groups with a correct photo | precision@4 |"
    assert [row.split("|")[1].strip() for row in rows] == ["0", "1", "2"]
    pages = [float(row.split("|")[2]) for row in rows]
    assert 0 <= pages[0] <= 1
    # A liked photo is the first result itself.
    assert pages[-1] == 1


@pytest.fixture(scope="module")
def released() -> Network:
    return tiny_network(
        seed=4,
        relation="kernel-mlp",
        relation_ret=False,
        keep_sketch=1.0,
        keep_photo=1.0,
        released_tokenizer_average=True,
        released_value_from_query=True,
        released_kernel_view=True,
        released_cross_norm=True,
    )


def test_the_released_computation_and_encoder_give_what_the_matcher_does(released: Network) -> None:
    matcher = Matcher(TorchEngine(released), "0" * 64)
    sketch, photos = random_tokens(released.config, 1, 0), random_tokens(released.config, 16, 1)
    logits = released_logits(released, torch.from_numpy(sketch.features), torch.from_numpy(photos.features)).numpy()
    assert logits.std() > 1e-3, "the pairs must differ for the comparison to mean anything"
    for chunk in (1, 5, 16, 32):
        matcher.chunk = chunk
        np.testing.assert_allclose(matcher.relation_logits(sketch, photos)[0], logits, atol=1e-5, rtol=1e-5)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = matcher.encode(images.numpy(), "photo").features
    np.testing.assert_allclose(released_tokens(released, images).numpy(), tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.soak
def test_every_way_is_measured(released: Network, tmp_path: Path) -> None:
    command = Command("scoring", None, device=True)
    command.begin(["--quick", "--output", str(tmp_path)])
    result = measure(command, released, Matcher(TorchEngine(tiny_network(methods=("rn",))), "0" * 64), nn.Flatten())
    assert (result.quick, "ONNX Runtime" in result.machine) == (True, True)
    assert [row[""] for row in result.rows] == ["a pair"] * 2 + ["a photo"] * 3 + ["a sketch"] * 3
    assert min(number(row, "microseconds") for row in result.rows) > 0
    assert [result.rows[first]["times faster"] for first in (0, 2, 5)] == [1, 1, 1]


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
    commit="0123abcd",
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
        "| first | 11,700 | 90.0 |  |\n| second |  |  | 0.123 |\n\nA processor; 2026-11-20, 0123abcd: `python -m one`",
        "Two": "",
    }
    assert "\nby hand\n" in text
    assert main([str(results), "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text

"""Clicks and the released computation are measured as they are said to be, and results get into their blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import SecretStr

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.model.matcher import Matcher
from sketch_search.model.training.network import TorchEngine
from sketch_search.model.training.network.zse import Network
from sketch_search.service.settings import Settings
from tests.benchmarks import clicks
from tests.benchmarks.results import Result, main, read_blocks
from tests.benchmarks.scoring import random_tokens, released_logits, released_tokens
from tests.networks import tiny_checkpoint, tiny_network, write_class_folders
from tests.service.served import served


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

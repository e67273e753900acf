"""The benchmark of scoring and encoding, on tiny networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from model.matcher import Matcher
from model.network import Network
from tests.benchmarks.released import released_logits, released_tokens
from tests.benchmarks.scoring import measure, random_tokens, table
from tests.networks import tiny_network


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


def test_the_released_computation_gives_what_the_matcher_does(released: Network) -> None:
    sketch, photos = random_tokens(released, 1, 0), random_tokens(released, 16, 1)
    logits = released_logits(released, sketch.features, photos.features)
    assert logits.std() > 1e-3, "the pairs must differ for the comparison to mean anything"
    for chunk in (1, 5, 16, 32):
        matcher = Matcher(released, "0" * 64, chunk=chunk)
        torch.testing.assert_close(matcher.relation_logits(sketch, photos)[0], logits, atol=1e-5, rtol=1e-5)


def test_the_released_encoder_gives_what_the_matcher_does(released: Network) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = Matcher(released, "0" * 64).encode(images, "photo").features
    torch.testing.assert_close(released_tokens(released, images), tokens, atol=1e-5, rtol=1e-5)


def test_every_way_is_measured_and_written_down(released: Network, tmp_path: Path) -> None:
    document = tmp_path / "scoring.json"
    result = measure(document, released, tiny_network(methods=("rn",)), nn.Flatten(), quick=True)
    written = json.loads(document.read_text(encoding="utf-8"))
    assert written == result.model_dump()
    assert written["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert 0 < written["difference"] < 0.05
    rows = [(row["part"], row["name"], row["dtype"]) for row in written["rows"]]
    assert rows == [
        ("score", "released computation", "float32"),
        ("score", "released shape", "float32"),
        ("score", "released shape", "bfloat16"),
        ("score", "tiny-random", "float32"),
        ("score", "tiny-random", "bfloat16"),
        ("score", "tiny-random, photos projected before", "bfloat16"),
        ("encode", "released encoder", "float32"),
        ("encode", "tiny-random", "float32"),
        ("encode", "CLIP ViT-B/32", "float32"),
    ]
    assert all(row["rounds"] == 2 and row["microseconds"] > 0 for row in written["rows"])
    assert written["rows"][0]["ratio"] == written["rows"][6]["ratio"] == 1
    assert all(name in table(result) for _, name, _ in rows)

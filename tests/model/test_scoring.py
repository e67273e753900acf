from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.matcher import Matcher
from model.network import TorchEngine
from model.network.zse import Network
from tests.benchmarks.command import Command
from tests.benchmarks.scale import number
from tests.benchmarks.scoring import measure, random_tokens, released_logits, released_tokens
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
    sketch, photos = random_tokens(released.config, 1, 0), random_tokens(released.config, 16, 1)
    logits = released_logits(released, torch.from_numpy(sketch.features), torch.from_numpy(photos.features)).numpy()
    assert logits.std() > 1e-3, "the pairs must differ for the comparison to mean anything"
    matcher = Matcher(TorchEngine(released), "0" * 64)
    for chunk in (1, 5, 16, 32):
        matcher.chunk = chunk
        np.testing.assert_allclose(matcher.relation_logits(sketch, photos)[0], logits, atol=1e-5, rtol=1e-5)


def test_the_released_encoder_gives_what_the_matcher_does(released: Network) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = Matcher(TorchEngine(released), "0" * 64).encode(images.numpy(), "photo").features
    np.testing.assert_allclose(released_tokens(released, images).numpy(), tokens, atol=1e-5, rtol=1e-5)


def test_every_way_is_measured(released: Network, tmp_path: Path) -> None:
    command = Command("scoring", None, device=True)
    command.begin(["--quick", "--output", str(tmp_path)])
    result = measure(command, released, Matcher(TorchEngine(tiny_network(methods=("rn",))), "0" * 64), nn.Flatten())
    assert (result.quick, "ONNX Runtime" in result.machine) == (True, True)
    encoders = ("released encoder, float32", "tiny-random, float32", "CLIP ViT-B/32, float32")
    assert [(row[""], row["way"]) for row in result.rows] == [
        ("a pair", "released computation, float32"),
        ("a pair", "tiny-random, float32"),
        *((f"a {modality}", way) for modality in ("photo", "sketch") for way in encoders),
    ]
    assert min(number(row, "microseconds") for row in result.rows) > 0
    assert [result.rows[first]["times faster"] for first in (0, 2, 5)] == [1, 1, 1]

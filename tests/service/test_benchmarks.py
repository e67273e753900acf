"""The released computation that searches are compared with is what the matcher does."""

from typing import Any

import numpy as np
import pytest
import torch

from sketch_search.model.matcher import Matcher
from sketch_search.model.torch import TorchEngine
from sketch_search.model.torch.zse import Network
from tests.benchmarks.scoring import random_tokens, released_logits, released_tokens
from tests.networks import tiny_network


@pytest.fixture(scope="module")
def released() -> Network:
    ways = ("tokenizer_average", "value_from_query", "kernel_view", "cross_norm")
    whole: dict[str, Any] = {"relation_ret": False, "keep_sketch": 1.0, "keep_photo": 1.0}
    return tiny_network(seed=4, relation="kernel-mlp", **whole, **{f"released_{way}": True for way in ways})


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

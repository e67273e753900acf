"""The network against a slow one, its cross-attention, sizes and precisions."""

import numpy as np
import pytest
import timm
import torch

from sketch_search.model.engine import ZseConfig, preset
from sketch_search.model.engine.config import kept_count
from sketch_search.model.errors import ModelError
from sketch_search.model.training.network import (
    AnchorConfig,
    ClipAtConfig,
    VitLayout,
    anchor_network_from,
    clip_at_network_from,
)
from sketch_search.model.training.network.relation import select_tokens
from sketch_search.model.training.network.zse import from_backbone
from tests.learning import small_backbone, small_vit
from tests.model import plain
from tests.networks import matcher_of, randn, tiny_config, tiny_network

CASES = [
    {},
    {"relation": "kernel-mlp"},
    {"relation": "kernel-mlp", "relation_ret": False, "keep_sketch": 1.0, "keep_photo": 1.0},
    {"relation": "kernel-mlp", "keep_sketch": 0.9, "keep_photo": 0.2},
    {"keep_sketch": 0.5, "keep_photo": 0.9},
    {"tokenizer": "patch"},
    {"cross_attention": False},
    {"released_value_from_query": True},
    {"keep_sketch": 0.5, "keep_photo": 0.9, "keep_cross": 0.6},
    {"relation": "kernel-mlp", "keep_sketch": 0.9, "keep_photo": 0.5, "keep_cross": 0.1},
    {"relation": "pair-mlp", "relation_ret": False, "keep_photo": 0.3},
    {"relation": "kernel-mlp", "relation_ret": False, "ret": "mean", "keep_sketch": 1.0, "keep_photo": 1.0},
]


def pictures(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 64, 64, generator=generator) * 2 - 1


@pytest.mark.parametrize("overrides", CASES, ids=str)
def test_scores_agree_with_a_plain_version_of_the_papers_equations(overrides: dict[str, object]) -> None:
    network = tiny_network(seed=3, **overrides)
    assert isinstance(network.config, ZseConfig)
    matcher = matcher_of(network, variants=1)
    sketches, photos = pictures(2, 1), pictures(2, 2)
    drawn, shown = matcher.encode(sketches.numpy(), "sketch"), matcher.encode(photos.numpy(), "photo")
    logits = matcher.relation_logits(drawn, shown)
    expected = torch.tensor(
        [[plain.relation_logit(network.config, network.state_dict(), s, p) for p in photos] for s in sketches]
    )
    spread = float(expected.std())
    assert spread > 1e-4, "the pairs must differ for the comparison to mean anything"
    np.testing.assert_allclose(logits, expected.numpy(), atol=min(2e-4, spread / 10), rtol=2e-4)


@pytest.mark.parametrize("relation", ["kernel-mlp", "pair-mlp", "best-match"])
def test_every_relation_network_reads_tokens_of_a_cross_attention_in_bfloat16(relation: str) -> None:
    network = tiny_network(seed=3, relation=relation, relation_ret=False)
    exact = matcher_of(network)
    tokens = exact.encode(pictures(2, 1).numpy(), "sketch"), exact.encode(pictures(3, 2).numpy(), "photo")
    expected = exact.relation_logits(*tokens)
    rounded = matcher_of(network.set_precision(torch.bfloat16)).relation_logits(*tokens)
    assert not np.array_equal(rounded, expected)
    np.testing.assert_allclose(rounded, expected, atol=0.25, rtol=0.05)


def test_a_resnet_gives_a_token_for_each_patch_and_their_mean_whatever_is_beside_it_in_a_batch() -> None:
    config = tiny_config(encoder="resnet50", ret="mean", keep_sketch=1.0, keep_photo=1.0)
    weights = timm.create_model("resnet50", num_classes=0).state_dict()
    network, images = from_backbone(config, weights).train(), pictures(3, 1)
    torch.testing.assert_close(network.state_dict()["encoder.map.conv1.weight"], weights["conv1.weight"])
    tokens = network.encode(images, "photo")
    assert tokens.features.shape == (3, 17, 32)
    torch.testing.assert_close(tokens.ret, tokens.patches.mean(dim=1))
    torch.testing.assert_close(network.encode(images[:1], "photo").features, tokens.features[:1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="starts from timm's resnet50"):
        from_backbone(config, small_backbone())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"keep_cross": 0.0}, "keep rates must lie"),
        ({"keep_cross": 0.5, "cross_attention": False}, "keep_cross needs cross-attention"),
        ({"ret": "mean"}, "keep rates must be 1"),
        ({"encoder": "resnet50", "keep_sketch": 1.0, "keep_photo": 1.0}, "no .Ret. of its own"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        tiny_config(**fields)


def test_a_keep_rate_means_the_decimal_number_it_was_written_as() -> None:
    assert [kept_count(n, 0.7) for n in (196, 138, 97)] == [138, 97, 68]
    assert kept_count(30, 0.1) == 3
    assert kept_count(100, 0.07) == 7
    assert kept_count(3, 0.01) == 1


def test_selection_keeps_the_most_important_in_grid_order_and_the_first_of_equals() -> None:
    importance = torch.tensor([[0.1, 0.4, 0.2, 0.4, 0.4], [0.5, 0.0, 0.0, 0.0, 0.0]])
    assert select_tokens(importance, 2).tolist() == [[1, 3], [0, 1]]
    assert select_tokens(importance, 5).tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        *(("zse-ti16", "vit_tiny_patch16_224"), ("zse-s16", "vit_small_patch16_224")),
        ("zse-b16", "vit_base_patch16_224.sam_in1k"),
    ],
)
def test_every_preset_starts_from_the_vit_of_its_size(name: str, tag: str) -> None:
    with torch.device("meta"):
        network = from_backbone(preset(name), timm.create_model(tag).state_dict())
    assert network.config == preset(name)


def test_new_networks_of_all_methods_encode_exactly_as_the_vit_they_start_from() -> None:
    weights, images = small_backbone(), randn(2, 3, 64, 64)
    layout = VitLayout(patch_size=16, width=32, depth=4, heads=2, mlp_width=64)
    zse = from_backbone(tiny_config(keep_sketch=1.0, keep_photo=1.0), weights).eval()
    anchored = anchor_network_from(AnchorConfig(name="a", vit=layout, image_size=64, anchors=()), weights).eval()
    prompted = clip_at_network_from(ClipAtConfig(name="c", vit=layout, image_size=64, prompts=0), weights).eval()
    with torch.inference_mode():
        expected = small_vit().forward_features(images)
        torch.testing.assert_close(zse.encode(images, "photo").features, expected)
        torch.testing.assert_close(anchored.retrieval_tokens(images), expected[:, :1])
        torch.testing.assert_close(prompted.encode(images, "photo").ret, expected[:, 0], atol=1e-5, rtol=1e-5)
    assert zse.calibration.methods == ("ret",)
    assert not zse.state_dict()["encoder.tokenizer.learnable.layers.6.weight"].any()


def test_networks_and_matchers_take_tensors_and_arrays_that_must_not_be_written() -> None:
    network, images = tiny_network(), pictures(2, 1)
    array = images.numpy()
    array.flags.writeable = False
    matcher, expected = matcher_of(network), network.encode(images, "photo").features
    assert torch.equal(network.encode(array, "photo").features, expected)
    assert np.array_equal(matcher.encode(images.requires_grad_(), "photo").features, expected.numpy())
    assert np.array_equal(matcher.observe(images[0], "sketch").tokens.ret, matcher.encode(array[:1], "sketch").ret)
    (gradient,) = torch.autograd.grad(network.encode(images, "photo").ret[:, 0].sum(), images)
    assert gradient.any()

"""Explanations of networks that pool tokens: what is said of a group is said of each of its patches."""

from __future__ import annotations

import pytest
import torch

from model.explanation import Explanation, compare_photos, explain, influential_pairs, observe
from model.matcher import Matcher
from model.network.layers.cross import CrossAttention
from model.network.pooling import GroupCounts
from model.network.zse import Network
from tests.networks import tiny_network

GROUPS = GroupCounts(4, 3)


def image(seed: int) -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_network(seed=2)


@pytest.fixture(scope="module")
def explanation(network: Network) -> Explanation:
    return explain(network.with_groups(GROUPS), image(0), image(1))


def test_every_patch_that_left_the_encoder_is_compared_by_the_token_of_its_group(
    network: Network, explanation: Explanation
) -> None:
    pooling = network.with_groups(GROUPS)
    sketch, photo = observe(pooling, image(0), "sketch"), observe(pooling, image(1), "photo")
    assert sketch.tokens.members is not None
    assert photo.tokens.members is not None
    assert torch.equal(explanation.sketch_cells, sketch.patches.positions[0])
    assert torch.equal(explanation.photo_cells, photo.patches.positions[0])
    s, p = pooling.align(pooling.project(sketch.tokens, "sketch"), pooling.project(photo.tokens, "photo"))
    cosines = torch.nn.functional.cosine_similarity(s.patches[0][:, None], p.patches[0][None], dim=-1)
    here, there = sketch.tokens.members.groups[0], photo.tokens.members.groups[0]
    torch.testing.assert_close(explanation.correspondence, cosines[here][:, there])
    matcher = Matcher(pooling, "0" * 64)
    expected = matcher.scores(sketch.tokens, photo.tokens, "rn")
    assert explanation.relation_score == pytest.approx(float(expected), abs=1e-6)


def test_the_patches_of_a_group_share_its_attention(network: Network, explanation: Explanation) -> None:
    pooling = network.with_groups(GROUPS)
    sketch, photo = observe(pooling, image(0), "sketch").tokens, observe(pooling, image(1), "photo").tokens
    assert isinstance(network.cross, CrossAttention)
    forth, back = network.cross.attention(
        network.cross.project(sketch, "sketch"), network.cross.project(photo, "photo")
    )
    assert explanation.ret_to_photo is not None
    assert explanation.ret_to_sketch is not None
    assert explanation.sketch_to_photo is not None
    assert explanation.photo_to_sketch is not None
    torch.testing.assert_close(explanation.ret_to_photo.sum(dim=1), forth[0, :, 0, 1:].sum(dim=1))
    torch.testing.assert_close(explanation.ret_to_sketch.sum(dim=1), back[0, :, 0, 1:].sum(dim=1))
    assert explanation.sketch_to_photo.shape == explanation.photo_to_sketch.transpose(1, 2).shape == (2, 9, 9)
    assert photo.members is not None
    assert sketch.members is not None
    sums = explanation.sketch_to_photo.sum(dim=2)
    torch.testing.assert_close(sums, forth[0, :, 1:, 1:].sum(dim=2)[:, sketch.members.groups[0]])
    for group in range(3):
        shares = explanation.ret_to_photo[:, photo.members.groups[0] == group]
        assert (shares == shares[:, :1]).all()


def test_matches_point_at_the_patch_in_the_middle_of_the_best_group(network: Network, explanation: Explanation) -> None:
    photo = observe(network.with_groups(GROUPS), image(1), "photo").tokens
    middles = set(photo.positions[0].tolist())
    matches = explanation.matches()
    assert {sketch for sketch, _, _ in matches} == set(explanation.sketch_cells.tolist())
    assert {cell for _, cell, _ in matches} <= middles
    for sketch, cell, cosine in matches:
        row = explanation.correspondence[int((explanation.sketch_cells == sketch).nonzero())]
        assert cosine == float(row.max()) == float(row[explanation.photo_cells == cell])


def test_influential_pairs_are_named_by_the_patches_in_the_middle(network: Network) -> None:
    pooling = network.with_groups(GROUPS)
    sketch, photo = observe(pooling, image(0), "sketch").tokens, observe(pooling, image(1), "photo").tokens
    pairs = influential_pairs(pooling, sketch, photo)
    assert pairs
    assert {pair.sketch_cell for pair in pairs} <= set(sketch.positions[0].tolist())
    assert {pair.photo_cell for pair in pairs} <= set(photo.positions[0].tolist())


def test_two_photos_are_compared_by_all_their_patches(network: Network) -> None:
    pooling = network.with_groups(GROUPS)
    found = compare_photos(*(observe(pooling, image(seed), "photo") for seed in (1, 2)))
    expected = compare_photos(*(observe(network, image(seed), "photo") for seed in (1, 2)))
    assert torch.equal(found.correspondence, expected.correspondence)
    assert found.matches() == expected.matches()

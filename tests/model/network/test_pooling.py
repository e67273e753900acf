from __future__ import annotations

import pytest
import torch

from model.errors import ModelError
from model.matcher import Matcher
from model.network.config import ModelConfig
from model.network.cost import costs
from model.network.pooling import GroupCounts, pooled
from model.network.tokens import Tokens
from tests.model.plain import ward
from tests.networks import TINY, tiny_config, tiny_network

POOLED = GroupCounts(4, 3)


def encoded(images: int = 3, patches: int = 11, width: int = 8, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, 1 + patches, width, generator=generator)
    cells = torch.stack([torch.randperm(16, generator=generator)[:patches].sort().values for _ in range(images)])
    return Tokens(features, cells)


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_patches_are_grouped_and_averaged_as_a_plain_ward_clustering_does(count: int) -> None:
    tokens = encoded()
    found = pooled(tokens, count)
    assert found.features.shape == (3, 1 + count, 8)
    assert found.features.dtype == torch.float32
    assert found.positions.shape == (3, count)
    assert found.positions.dtype == torch.int64
    assert found.members is not None
    assert torch.equal(found.members.cells, tokens.positions)
    assert torch.equal(found.ret, tokens.ret)
    for image in range(3):
        groups = found.members.groups[image]
        sets = [frozenset((groups == number).nonzero()[:, 0].tolist()) for number in range(count)]
        assert set(sets) == ward(tokens.patches[image], count)
        for number, patches in enumerate(sets):
            inside = tokens.patches[image, sorted(patches)]
            torch.testing.assert_close(found.patches[image, number], inside.mean(dim=0))
            # It sits at the patch that is most like the mean direction.
            directions = torch.nn.functional.normalize(inside.double(), dim=1)
            middle = sorted(patches)[int((directions @ directions.mean(dim=0)).round(decimals=9).argmax())]
            assert found.positions[image, number] == tokens.positions[image, middle]
    assert (found.positions.diff(dim=1) > 0).all()


@pytest.mark.parametrize("count", [None, 11, 40])
def test_images_with_no_more_patches_than_groups_keep_their_tokens(count: int | None) -> None:
    tokens = encoded()
    assert pooled(tokens, count) is tokens
    assert pooled(Tokens.of_ret(tokens.ret), count).features.shape == (3, 1, 8)


def test_an_image_gets_the_same_tokens_alone_again_and_in_any_batch() -> None:
    tokens = encoded(images=5)
    together, again = pooled(tokens, 4), pooled(tokens, 4)
    backwards = pooled(tokens[[4, 3, 2, 1, 0]], 4)
    for found in (again, Tokens.cat([pooled(tokens[image : image + 1], 4) for image in range(5)])):
        assert_same(found, together)
    assert_same(backwards[[4, 3, 2, 1, 0]], together)


def assert_same(found: Tokens, expected: Tokens) -> None:
    assert found.members is not None
    assert expected.members is not None
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.positions, expected.positions)
    assert torch.equal(found.members.cells, expected.members.cells)
    assert torch.equal(found.members.groups, expected.members.groups)


def test_a_patch_by_itself_keeps_its_token_bit_for_bit() -> None:
    tokens = encoded()
    found = pooled(tokens, 10)
    assert found.members is not None
    for image in range(3):
        alone = found.members.groups[image].bincount() == 1
        places = torch.searchsorted(tokens.positions[image], found.positions[image, alone])
        assert alone.sum() == 9
        assert torch.equal(found.patches[image, alone], tokens.patches[image, places])


def test_equal_tokens_zero_tokens_and_values_that_are_not_finite_still_make_so_many_groups() -> None:
    equal = Tokens(torch.ones(1, 7, 8), torch.arange(6)[None])
    found = pooled(equal, 4)
    assert torch.equal(found.features, torch.ones(1, 5, 8))
    assert found.members is not None
    assert sorted(set(found.members.groups[0].tolist())) == [0, 1, 2, 3]
    assert torch.equal(pooled(Tokens(torch.zeros(1, 7, 8), torch.arange(6)[None]), 2).features, torch.zeros(1, 3, 8))
    broken = encoded(1)
    broken.features[0, 3] = torch.inf
    assert not pooled(broken, 4).features.isfinite().all()


def test_tokens_of_half_precision_are_pooled_and_gradients_reach_every_patch() -> None:
    half = pooled(encoded().to(dtype=torch.float16), 4)
    assert half.features.dtype == torch.float16
    tokens = encoded()
    leaf = tokens.features.clone().requires_grad_()
    pooled(Tokens(leaf, tokens.positions), 4).features.sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert (leaf.grad > 0).all()


def test_unpooled_tokens_have_for_each_patch_the_token_of_its_group() -> None:
    tokens = encoded()
    found = pooled(tokens, 4)
    every = found.unpooled()
    assert every.members is None
    assert torch.equal(every.positions, tokens.positions)
    assert found.members is not None
    for image in range(3):
        assert torch.equal(every.patches[image], found.patches[image, found.members.groups[image]])
    torch.testing.assert_close(every.patches.mean(dim=1), tokens.patches.mean(dim=1))
    assert tokens.unpooled() is tokens


def test_pooled_tokens_and_others_are_not_put_together() -> None:
    with pytest.raises(ValueError, match="pooled"):
        Tokens.cat([encoded(), pooled(encoded(), 11), pooled(encoded(), 4)])


def test_a_matcher_pools_its_tokens_and_scores_by_them() -> None:
    plain = Matcher(tiny_network(seed=3), "0" * 64)
    matcher = plain.with_groups(POOLED)
    assert (plain.token_count("sketch"), plain.token_count("photo")) == (10, 10)
    assert (matcher.token_count("sketch"), matcher.token_count("photo")) == (5, 4)
    assert matcher.groups == POOLED
    assert plain.groups == GroupCounts()
    every = plain.encode(pictures(2, 1), "sketch"), plain.encode(pictures(3, 2), "photo")
    found = matcher.encode(pictures(2, 1), "sketch"), matcher.encode(pictures(3, 2), "photo")
    for tokens, before, count in zip(found, every, (4, 3), strict=True):
        assert_same(tokens, pooled(before, count))
    scores = matcher.scores(*found, "rn")
    assert torch.equal(scores, plain.scores(*found, "rn"))
    assert not torch.equal(scores, plain.scores(*every, "rn"))
    # The same with the photos' side of the cross-attention computed before.
    assert torch.equal(scores, matcher.scores(found[0], matcher.project(found[1]), "rn"))
    assert torch.equal(matcher.scores(*found, "ret"), plain.scores(*every, "ret"))
    assert matcher.with_groups(POOLED) is matcher
    again = matcher.with_groups(GroupCounts())
    assert torch.equal(again.encode(pictures(3, 2), "photo").features, every[1].features)


def test_a_configuration_says_how_tokens_are_pooled() -> None:
    config = tiny_config(groups_sketch=4, groups_photo=100)
    assert ModelConfig.from_json(config.to_json()) == config
    assert (config.token_count("sketch"), config.token_count("photo")) == (5, 10)
    matcher = Matcher(tiny_network(groups_sketch=4, groups_photo=3), "0" * 64)
    assert matcher.groups == POOLED
    assert matcher.encode(pictures(1, 1), "photo").features.shape == (1, 4, 32)
    # Seven tokens fewer, and for each of nine patches its cell and its group.
    smaller = costs(tiny_config(groups_photo=2)).photo_bytes
    assert smaller == costs(TINY).photo_bytes - 7 * (32 + 4 + 1) + 2 * 9


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"groups_photo": 0}, "1 to 256"),
        ({"groups_sketch": 257}, "1 to 256"),
        ({"groups_photo": 3, "relation": "kernel-mlp"}, "only for the relation best-match"),
        ({"groups_sketch": 3, "keep_cross": 0.5}, "where keep_cross is 1"),
    ],
)
def test_tokens_that_cannot_be_pooled_so_are_refused(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        tiny_config(**overrides)


@pytest.mark.parametrize(
    ("text", "counts"),
    [("34", GroupCounts(34, 34)), ("23/17", GroupCounts(23, 17)), ("all/34", GroupCounts(None, 34)), ("all", None)],
)
def test_counts_of_groups_are_read_as_they_are_written(text: str, counts: GroupCounts | None) -> None:
    found = GroupCounts.parse(text)
    assert found == (counts or GroupCounts())
    assert GroupCounts.parse(str(found)) == found


@pytest.mark.parametrize("text", ["", "0", "257", "a", "1/2/3", "1.5", "-3", "3/", "²"])
def test_other_texts_are_no_counts_of_groups(text: str) -> None:
    with pytest.raises(ModelError, match="groups"):
        GroupCounts.parse(text)

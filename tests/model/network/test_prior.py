from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model.checkpoint.file import load_network, save_checkpoint
from model.explanation import explain
from model.explanation.pair import influential_pairs
from model.matcher import Matcher
from model.network.ret_network import SHARPNESS, Prior
from model.network.tokens import Tokens
from model.network.zse import Network
from tests.networks import tiny_network

WEIGHTS = {"level": 0.1, "ret_weight": 1.5, "relation_weight": 8.0}


def with_prior(network: Network, **values: float) -> Network:
    """A copy of the network with a prior of eight random prototypes."""
    other = Network(dataclasses.replace(network.config, prototypes=8), network.calibration)
    other.load_state_dict(network.state_dict(), strict=False)
    assert other.prior is not None
    generator = torch.Generator().manual_seed(3)
    other.prior.prototypes.copy_(F.normalize(torch.randn(8, network.config.width, generator=generator), dim=1))
    for name, value in (WEIGHTS | values).items():
        getattr(other.prior, name).fill_(value)
    return other.requires_grad_(False).eval()


@pytest.fixture
def plain() -> Network:
    return tiny_network()


def encoded(matcher: Matcher, count: int = 5) -> tuple[Tokens, Tokens]:
    generator = torch.Generator().manual_seed(1)
    size = matcher.config.image_size
    images = torch.rand(2 * count, 3, size, size, generator=generator) * 2 - 1
    return matcher.encode(images[:count], "sketch"), matcher.encode(images[count:], "photo")


def test_the_nearer_a_photo_lies_to_its_nearest_prototypes_the_higher_is_its_prior() -> None:
    prior = Prior(2, 3)
    prior.prototypes.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    between, one, none = prior(torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).tolist()
    assert one > between > none
    assert none == pytest.approx(0, abs=1e-6)
    assert one == pytest.approx(torch.tensor([SHARPNESS, 0.0]).exp().mean().log().item() / SHARPNESS, abs=1e-6)


def test_relation_logits_and_distances_are_lowered_by_the_weighted_prior_of_each_photo(plain: Network) -> None:
    changed = with_prior(plain)
    assert changed.prior is not None
    before, after = Matcher(plain, "0" * 64), Matcher(changed, "0" * 64)
    sketches, photos = encoded(before)
    priors = changed.prior(photos.ret)
    torch.testing.assert_close(
        after.relation_logits(sketches, photos), before.relation_logits(sketches, photos) - 8 * priors
    )
    cosines = F.normalize(sketches.ret, dim=1) @ F.normalize(photos.ret, dim=1).T - 1.5 * priors
    expected = (2 - 2 * cosines).clamp(0, 4).sqrt()
    torch.testing.assert_close(after.ret_distances(sketches, photos), expected, atol=1e-4, rtol=1e-4)


def test_a_prior_without_weight_changes_nothing(plain: Network) -> None:
    before = Matcher(plain, "0" * 64)
    after = Matcher(with_prior(plain, ret_weight=0.0, relation_weight=0.0), "0" * 64)
    sketches, photos = encoded(before)
    for method in before.methods:
        torch.testing.assert_close(after.scores(sketches, photos, method), before.scores(sketches, photos, method))


def test_a_photos_prior_does_not_depend_on_the_photos_beside_it(plain: Network) -> None:
    matcher = Matcher(with_prior(plain), "0" * 64)
    ret = torch.randn(150, plain.config.width, generator=torch.Generator().manual_seed(5))
    photos = Tokens.of_ret(ret)
    priors = matcher.priors(photos)
    assert priors is not None
    alone = [matcher.priors(photos[row : row + 1]) for row in range(len(ret))]
    assert torch.equal(priors, torch.cat([one for one in alone if one is not None]))
    sketches = Tokens.of_ret(ret[:3])
    assert torch.equal(matcher.ret_distances(sketches, photos), matcher.ret_distances(sketches, photos, priors))
    none = matcher.priors(photos[:0])
    assert none is not None
    assert none.shape == (0,)
    assert Matcher(plain, "0" * 64).priors(photos) is None


def test_an_explanation_has_the_scores_of_a_search(plain: Network) -> None:
    network = with_prior(plain)
    matcher = Matcher(network, "0" * 64, variants=1)
    size = network.config.image_size
    pictures = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(7)) * 2 - 1
    told = explain(network, pictures[:1], pictures[1:])
    sketch, photo = matcher.encode(pictures[:1], "sketch"), matcher.encode(pictures[1:], "photo")
    assert told.relation_score == pytest.approx(float(matcher.scores(sketch, photo, "rn")), abs=1e-6)
    assert told.ret_distance == pytest.approx(-float(matcher.scores(sketch, photo, "ret")), abs=1e-6)
    pairs = influential_pairs(network, sketch, photo)
    assert all(pair.drop > 0 for pair in pairs)


def test_a_checkpoint_keeps_its_prior(plain: Network, tmp_path: Path) -> None:
    network = with_prior(plain)
    save_checkpoint(network, tmp_path / "with.safetensors")
    again = load_network(tmp_path / "with.safetensors")
    assert again.config.prototypes == 8
    assert again.prior is not None
    assert network.prior is not None
    for name, value in network.prior.state_dict().items():
        assert torch.equal(again.prior.state_dict()[name], value)

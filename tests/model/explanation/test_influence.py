"""Influence of token pairs, against leaving out one pair after the other."""

from __future__ import annotations

import pytest
import torch

from model.explanation.pair import PairInfluence, influential_pairs, logits_without_each
from model.network.layers.relation import BestMatchRelation
from model.network.tokens import Tokens
from model.network.zse import Network
from tests.networks import tiny_network

GRID = 4


def tokens(count: int, seed: int, width: int = 32) -> Tokens:
    """One image of which ``count`` cells were kept."""
    chance = torch.Generator().manual_seed(seed)
    cells = torch.randperm(GRID**2, generator=chance)[:count].sort().values
    return Tokens(torch.randn(1, 1 + count, width, generator=chance), cells[None])


def best_match(network: Network) -> BestMatchRelation:
    assert isinstance(network.relation, BestMatchRelation)
    return network.relation


def scored_without(network: Network, kernel: torch.Tensor, sketch: Tokens, photo: Tokens) -> float:
    """The relation logit of a kernel matrix, written out; -inf: an entry that is not there."""
    relation = best_match(network)
    w, v = relation.token_weights(sketch, photo)
    matched = 0.0
    for i, row in enumerate(kernel):
        there = row[row > -torch.inf]
        matched += float(w[0, i] * (there.max() if len(there) else 0))
    for j, column in enumerate(kernel.T):
        there = column[column > -torch.inf]
        matched += float(v[0, j] * (there.max() if len(there) else 0))
    return float(relation.scale / 2 * matched + relation.bias)


@pytest.mark.parametrize(("n_s", "n_p"), [(6, 7), (1, 5), (5, 1), (16, 16)])
def test_every_pair_left_out_gives_what_leaving_it_out_by_hand_gives(n_s: int, n_p: int) -> None:
    network = tiny_network()
    sketch, photo = tokens(n_s, 1), tokens(n_p, 2)
    found = logits_without_each(best_match(network), sketch, photo)
    kernel = network.relation.kernel(sketch, photo)[0]
    assert found.shape == kernel.shape
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            without = kernel.clone()
            without[i, j] = -torch.inf
            expected = scored_without(network, without, sketch, photo)
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-4), (i, j)
    full = scored_without(network, kernel, sketch, photo)
    assert full == pytest.approx(float(network.relation(sketch, photo)), abs=1e-4)
    assert (found - full).abs().max() > 1e-3  # something hangs on the pairs


def test_of_two_equal_best_matches_neither_is_missed() -> None:
    network = tiny_network()
    sketch = tokens(2, 1)
    twins = torch.cat([sketch.features[:, :2], sketch.features[:, 1:2]], dim=1)
    found = logits_without_each(best_match(network), sketch, Tokens(twins, torch.tensor([[3, 4]])))
    full = network.relation(sketch, Tokens(twins, torch.tensor([[3, 4]])))
    # The first sketch token is still matched by the other twin; only that twin's own column loses.
    assert isinstance(network.relation, BestMatchRelation)
    kernel = network.relation.kernel(sketch, Tokens(twins, torch.tensor([[3, 4]])))[0]
    v = network.relation.token_weights(sketch, Tokens(twins, torch.tensor([[3, 4]])))[1][0]
    lost = network.relation.scale / 2 * v * (kernel[0] - kernel[1])
    torch.testing.assert_close(full - found[0], lost, atol=1e-5, rtol=0)


@pytest.mark.parametrize("with_ret", [True, False])
def test_drops_are_shares_of_the_score_and_the_strongest_come_first(with_ret: bool) -> None:
    network = tiny_network(relation_ret=with_ret)
    sketch, photo = tokens(8, 3), tokens(9, 4)
    found = influential_pairs(network, sketch, photo, count=5)
    sides = network.project(sketch, "sketch"), network.project(photo, "photo")
    pair = network.align(*sides)
    score = float(network.relate(*sides).sigmoid())
    added = float(network.relate(*sides) - network.relation(*pair))
    kernel = network.relation.kernel(*pair)[0]
    drops = []
    for place in range(kernel.numel()):
        without = kernel.flatten().clone()
        without[place] = -torch.inf
        logit = scored_without(network, without.reshape(kernel.shape), *pair) + added
        drops.append((score - float(torch.tensor(logit).sigmoid())) / score)
    expected = sorted((drop for drop in drops if drop > 1e-6), reverse=True)[:5]
    assert [influence.drop for influence in found] == pytest.approx(expected, abs=1e-4)
    assert expected[0] > 1e-3
    best = drops.index(max(drops))
    row, column = divmod(best, kernel.shape[1])
    cells = int(pair[0].positions[0, row]), int(pair[1].positions[0, column])
    assert cells == (found[0].sketch_cell, found[0].photo_cell)


def test_the_pair_that_was_put_there_is_the_most_influential() -> None:
    network = tiny_network(cross_attention=False, relation_ret=False)
    width = network.config.width
    # Every token points another way but for one that both have.
    features = torch.eye(width)[:13]
    sketch = Tokens(features[None, :6], torch.tensor([[0, 2, 4, 6, 8]]))
    photo = Tokens(torch.cat([features[6:11], features[3:4]])[None], torch.tensor([[1, 3, 5, 7, 9]]))
    first, *others = influential_pairs(network, sketch, photo)
    assert (first.sketch_cell, first.photo_cell) == (4, 9)
    assert 0 < first.drop <= 1
    assert not others  # the rest is orthogonal: nothing hangs on it


def test_where_no_pair_has_a_place_or_a_score_there_is_no_influence() -> None:
    assert influential_pairs(tiny_network(methods=("ret",), best_method="ret"), tokens(6, 1), tokens(6, 2)) == ()
    assert influential_pairs(tiny_network(relation="kernel-mlp"), tokens(6, 1), tokens(6, 2)) == ()


def test_the_number_of_pairs_is_bounded() -> None:
    network = tiny_network()
    assert len(influential_pairs(network, tokens(8, 3), tokens(9, 4), count=1)) == 1
    many = influential_pairs(network, tokens(8, 3), tokens(9, 4), count=1000)
    assert all(isinstance(pair, PairInfluence) and pair.drop > 0 for pair in many)
    assert len(many) <= 8 + 9

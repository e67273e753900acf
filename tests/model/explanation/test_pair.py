"""Pairs are explained by tokens, scores and blocks, and by what a score would be without a part."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.explanation import Observed, SelfAttention, compare, explain, influential_pairs, logits_without_each, observe
from model.network.encoder import EncoderTrace
from model.network.relation import BestMatchRelation
from model.network.tokens import Tokens
from model.network.zse import Network
from tests.networks import comparing_encoded_tokens, randn, tiny_network

GRID = 4


def image(seed: int, network: Network) -> torch.Tensor:
    size = network.config.image_size
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def observed(cells: list[int], features: torch.Tensor) -> Observed:
    """An image of which these cells were kept; features (1 + cells, d), [Ret] first."""
    nothing = SelfAttention(torch.zeros(1, 1, GRID, GRID), ())
    tokens = Tokens(features[None], torch.tensor([cells]))
    return Observed(tokens, nothing)


def test_tokens_copied_from_the_sketch_into_the_photo_are_each_others_correspondence() -> None:
    network = comparing_encoded_tokens(tiny_network())
    cells, places = [0, 3, 5, 6, 9, 14], [1, 2, 7, 8, 10, 12]
    moved = [4, 0, 5, 2, 1, 3]  # the photo's i-th token is the sketch's moved[i]-th
    features = randn(7, network.config.width)
    photo = torch.cat([randn(1, network.config.width, seed=1), 3 * features[1:][moved]])
    explanation = compare(network, observed(cells, features), observed(places, photo))
    matches = explanation.matches()
    assert {(sketch, there) for sketch, there, _ in matches} == {(cells[m], places[i]) for i, m in enumerate(moved)}
    assert [cosine for *_, cosine in matches] == pytest.approx([1.0] * 6, abs=1e-5)
    assert explanation.sketch_cells.tolist() == cells
    assert explanation.photo_cells.tolist() == places


def test_parts_of_a_sketch_are_looked_for_where_the_photo_is_like_the_whole_sketch() -> None:
    network = comparing_encoded_tokens(tiny_network())
    features = randn(1 + GRID**2, network.config.width)
    cells = list(range(GRID**2))
    sketch, photo = observed([0, 5], features[:3]), observed(cells, randn(1 + GRID**2, network.config.width, seed=1))
    left = torch.tensor([cell % GRID < 2 for cell in cells])
    local = torch.nn.functional.normalize(torch.where(left[:, None], features[0], -features[0]), dim=1)[None]
    plain = compare(network, sketch, photo)
    led = compare(network, sketch, dataclasses.replace(photo, local=local))
    assert torch.equal(led.correspondence, plain.correspondence)
    assert led.relevance is not None
    # Of the three columns around a patch, as many are like the sketch as lie on the left.
    torch.testing.assert_close(led.relevance.view(GRID, GRID)[0], torch.tensor([2.0, 2 / 3, -2 / 3, -2.0]))
    rows = led.correspondence + led.relevance
    cosines, places = led.best()
    assert places.tolist() == rows.argmax(dim=1).tolist()
    # Each cosine is that of the pair, without what the whole sketch adds.
    assert cosines.tolist() == [led.correspondence[part, place] for part, place in enumerate(places.tolist())]
    assert {there % GRID for _, there, _ in led.matches()} <= {0, 1}
    assert plain.relevance is None


def test_matches_come_strongest_first_and_are_the_best_of_their_rows() -> None:
    network = tiny_network()
    explanation = explain(network, image(0, network), image(1, network))
    matches = explanation.matches()
    cosines = [cosine for *_, cosine in matches]
    assert cosines == sorted(cosines, reverse=True)
    assert sorted(sketch for sketch, *_ in matches) == explanation.sketch_cells.tolist()
    for sketch, photo, cosine in matches:
        row = explanation.correspondence[explanation.sketch_cells.tolist().index(sketch)]
        assert cosine == row.max()
        assert cosine == row[explanation.photo_cells.tolist().index(photo)]


def test_attention_by_head_and_layer_is_what_each_block_computed_and_zero_where_tokens_were_dropped() -> None:
    network = tiny_network()
    trace = EncoderTrace()
    network.encode(image(0, network), "sketch", trace)
    seen = observe(network, image(0, network), "sketch").attention
    assert seen.blocks.shape == (4, 2, GRID, GRID)
    assert seen.heads.shape == (2, GRID, GRID)
    assert seen.layers.shape == (4, GRID, GRID)
    for block, attention, positions in zip(seen.blocks.flatten(2), trace.attention, trace.positions, strict=True):
        assert torch.equal(block[:, positions[0]], attention[0])
        assert block.count_nonzero() == attention.count_nonzero()
    torch.testing.assert_close(seen.layers[0], seen.blocks[0].mean(dim=0))
    assert torch.equal(seen.heads, seen.blocks[-1])
    assert [int(kept.sum()) for kept in seen.kept] == list(network.config.kept("sketch"))
    # Selection keeps what [Ret] attends to most, on the average of the heads (eq. 7).
    first = seen.layers[1].flatten()
    assert first[seen.kept[0].flatten()].min() >= first[~seen.kept[0].flatten()].max()
    # Blocks before the first selection see every token, later ones only those that were kept.
    assert [int((layer > 0).sum()) for layer in seen.layers] == [16, 16, *network.config.kept("sketch")][:4]


def test_the_cross_attention_shown_is_the_one_that_updates_the_tokens() -> None:
    network = tiny_network()
    sketch, photo = observe(network, image(0, network), "sketch"), observe(network, image(1, network), "photo")
    explanation = compare(network, sketch, photo)
    assert explanation.sketch_to_photo is not None
    assert explanation.ret_to_photo is not None
    s_side, p_side = network.cross.project(sketch.tokens, "sketch"), network.cross.project(photo.tokens, "photo")
    values = p_side.value[0][:, 1:]
    # Rows sum to 1 with what goes to the photo's [Ret], whose value is the first.
    weights = torch.cat([explanation.ret_to_photo[:, None], explanation.sketch_to_photo], dim=1)
    to_ret = 1 - weights.sum(dim=2, keepdim=True)
    gathered = weights @ values + to_ret * p_side.value[0][:, :1]
    expected = network.cross.sketch(s_side.features, gathered[None])
    torch.testing.assert_close(expected, network.align(s_side, p_side)[0].features, atol=1e-5, rtol=1e-4)
    assert explanation.photo_to_sketch is not None
    assert explanation.ret_to_sketch is not None
    assert explanation.photo_to_sketch.shape == (2, len(explanation.photo_cells), len(explanation.sketch_cells))
    assert explanation.ret_to_sketch.shape == (2, len(explanation.sketch_cells))


def test_an_untrained_relation_network_gives_no_score() -> None:
    network = tiny_network(methods=("ret",), best_method="ret")
    assert explain(network, image(0, network), image(1, network)).relation_score is None


def tokens(count: int, seed: int, width: int = 32) -> Tokens:
    """Makes the tokens of an image of which ``count`` cells were kept."""
    chance = torch.Generator().manual_seed(seed)
    cells = torch.randperm(GRID**2, generator=chance)[:count].sort().values
    return Tokens(torch.randn(1, 1 + count, width, generator=chance), cells[None])


def best_match(network: Network) -> BestMatchRelation:
    assert isinstance(network.relation, BestMatchRelation)
    return network.relation


def scored_without(network: Network, kernel: torch.Tensor, sketch: Tokens, photo: Tokens) -> float:
    """Returns the relation logit of a kernel matrix, written out; -inf: an entry that is not there."""
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


def test_where_no_pair_has_a_place_or_a_score_there_is_no_influence() -> None:
    assert influential_pairs(tiny_network(methods=("ret",), best_method="ret"), tokens(6, 1), tokens(6, 2)) == ()
    assert influential_pairs(tiny_network(relation="kernel-mlp"), tokens(6, 1), tokens(6, 2)) == ()

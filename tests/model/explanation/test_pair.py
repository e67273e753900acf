import dataclasses

import numpy as np
import pytest
import torch

from sketch_search.model.engine import Aligned, Floats, Observed, SelfAttention, Tokens, sigmoid, unit
from sketch_search.model.explanation import STRONGEST, PairExplanation, influential_pairs, lost_logits
from sketch_search.model.torch import Tokens as Tensors
from sketch_search.model.torch import TorchEngine
from sketch_search.model.torch.vit import EncoderTrace
from sketch_search.model.torch.zse import Network
from tests.networks import matcher_of, randn, tiny_network

GRID = 4


def image(seed: int, network: Network) -> Floats:
    size = network.config.image_size
    return np.random.default_rng(seed).random((1, 3, size, size), np.float32) * 2 - 1


def observed(cells: list[int], features: Floats) -> Observed:
    nothing = SelfAttention(np.zeros((1, 1, GRID, GRID), np.float32), ())
    return Observed(Tokens(features[None], np.array([cells])), nothing)


def compare(network: Network, sketch: Observed, photo: Observed) -> PairExplanation:
    return matcher_of(network).compare(sketch, photo)


def tensors(tokens: Tokens) -> Tensors:
    return Tensors(torch.from_numpy(tokens.features), torch.from_numpy(tokens.positions))


def comparing_encoded_tokens(network: Network) -> Network:
    """The network with a cross-attention that only normalises tokens: equal ones stay each other's best match."""
    for branch in (network.cross.sketch, network.cross.photo):
        for parameter in (*branch.out.parameters(), *branch.ffn[3].parameters()):
            parameter.zero_()
    return network


def test_tokens_copied_from_the_sketch_into_the_photo_are_each_others_correspondence() -> None:
    network = comparing_encoded_tokens(tiny_network())
    cells, places = [0, 3, 5, 6, 9, 14], [1, 2, 7, 8, 10, 12]
    moved = [4, 0, 5, 2, 1, 3]  # the photo's i-th token is the sketch's moved[i]-th
    features = randn(7, network.config.width).numpy()
    photo = np.concatenate([randn(1, network.config.width, seed=1).numpy(), 3 * features[1:][moved]])
    explanation = compare(network, observed(cells, features), observed(places, photo))
    matches = explanation.matches()
    assert {(sketch, there) for sketch, there, _ in matches} == {(cells[m], places[i]) for i, m in enumerate(moved)}
    assert [cosine for *_, cosine in matches] == pytest.approx([1.0] * 6, abs=1e-5)
    assert explanation.sketch_cells.tolist() == cells
    assert explanation.photo_cells.tolist() == places


def test_parts_of_a_sketch_are_looked_for_where_the_photo_is_like_the_whole_sketch() -> None:
    network = comparing_encoded_tokens(tiny_network())
    features, shown = (randn(1 + GRID**2, network.config.width, seed=seed).numpy() for seed in (0, 1))
    cells = list(range(GRID**2))
    sketch, photo = observed([0, 5, 9], features[:4]), observed(cells, shown)
    left = np.array([cell % GRID < 2 for cell in cells])
    local = unit(np.where(left[:, None], features[0], -features[0]))
    plain = compare(network, sketch, photo)
    led = compare(network, sketch, dataclasses.replace(photo, local=local))
    assert np.array_equal(led.correspondence, plain.correspondence)
    assert plain.preference is None
    assert led.preference is not None
    for explanation, chosen_by in ((plain, plain.correspondence), (led, led.correspondence + led.preference)):
        # Each cosine is that of the pair, without what the whole sketch adds.
        best = [
            (cell, int(place), float(explanation.correspondence[row, place]))
            for row, (cell, place) in enumerate(zip([0, 5, 9], chosen_by.argmax(axis=1), strict=True))
        ]
        assert explanation.matches() == sorted(best, key=lambda match: -match[2]), "the strongest come first"
    assert {there % GRID for _, there, _ in led.matches()} <= {0, 1}


def test_parts_that_look_alike_are_told_apart_by_their_places_in_the_thing() -> None:
    network = comparing_encoded_tokens(tiny_network())
    ret, same = (randn(1, network.config.width, seed=seed).numpy() for seed in (0, 1))
    cells = list(range(GRID**2))
    alike = np.concatenate([ret, np.repeat(same, GRID**2, axis=0)])
    corners = [0, GRID - 1, GRID**2 - GRID, GRID**2 - 1]
    sketch, photo = observed(corners, alike[:5]), observed(cells, alike)
    led = compare(network, sketch, dataclasses.replace(photo, local=unit(np.repeat(ret, GRID**2, axis=0))))
    assert {(cell, place) for cell, place, _ in led.matches()} == {(cell, cell) for cell in corners}


def test_attention_by_head_and_layer_is_what_each_block_computed_and_zero_where_tokens_were_dropped() -> None:
    network = tiny_network()
    trace = EncoderTrace()
    network.encode(torch.from_numpy(image(0, network)), "sketch", trace)
    seen = TorchEngine(network).observe(image(0, network), "sketch").attention
    assert seen.blocks.shape == (4, 2, GRID, GRID)
    assert seen.heads.shape == (2, GRID, GRID)
    assert seen.layers.shape == (4, GRID, GRID)
    for block, attention, positions in zip(
        seen.blocks.reshape(4, 2, -1), trace.attention, trace.positions, strict=True
    ):
        assert np.array_equal(block[:, positions[0].numpy()], attention[0].numpy())
        assert np.count_nonzero(block) == attention.count_nonzero()
    np.testing.assert_allclose(seen.layers[0], seen.blocks[0].mean(axis=0))
    assert np.array_equal(seen.heads, seen.blocks[-1])
    assert [int(kept.sum()) for kept in seen.kept] == [12, 9], "0.7 of 16, and 0.7 of these"
    # Selection keeps what [Ret] attends to most, on the average of the heads (eq. 7).
    first = seen.layers[1].flatten()
    assert first[seen.kept[0].flatten()].min() >= first[~seen.kept[0].flatten()].max()
    assert [int((layer > 0).sum()) for layer in seen.layers] == [16, 16, 12, 9]


def test_the_cross_attention_shown_is_the_one_that_updates_the_tokens() -> None:
    network = tiny_network()
    engine = TorchEngine(network)
    sketch, photo = engine.observe(image(0, network), "sketch"), engine.observe(image(1, network), "photo")
    explanation = compare(network, sketch, photo)
    assert explanation.aligned is not None
    s_side = network.cross.project(tensors(sketch.tokens), "sketch")
    p_side = network.cross.project(tensors(photo.tokens), "photo")
    gathered = torch.from_numpy(explanation.aligned.sketch_to_photo) @ p_side.value[0]
    expected = network.cross.sketch(s_side.features, gathered[None])
    torch.testing.assert_close(expected, network.align(s_side, p_side)[0].features, atol=1e-5, rtol=1e-4)
    back = explanation.aligned.photo_to_sketch
    assert back.shape == (2, 1 + len(explanation.photo_cells), 1 + len(explanation.sketch_cells))


def tokens(count: int, seed: int, width: int = 32) -> Tokens:
    chance = np.random.default_rng(seed)
    cells = np.sort(chance.permutation(GRID**2)[:count])
    return Tokens(chance.standard_normal((1, 1 + count, width), np.float32), cells[None])


def lost_without(aligned: Aligned, row: int, column: int) -> float:
    """Returns how much the relation logit falls without a pair, written out."""
    matching = aligned.matching
    assert matching is not None

    def matched(kernel: Floats) -> float:
        # A row or a column without any pair counts as 0.
        rows = [max(one[one > -np.inf], default=0.0) for one in kernel]
        columns = [max(one[one > -np.inf], default=0.0) for one in kernel.T]
        return float(matching.sketch_worth @ rows + matching.photo_worth @ columns)

    kernel = unit(aligned.sketch) @ unit(aligned.photo).T
    without = kernel.copy()
    without[row, column] = -np.inf
    return matching.scale / 2 * (matched(kernel) - matched(without))


TWO = tokens(2, 1)
TWINS = Tokens(np.concatenate([TWO.features, TWO.features[:, 1:2]], axis=1), np.array([[2, 3, 4]]))


@pytest.mark.parametrize(
    ("sketch", "photo"),
    # Of two equal best matches neither is missed, as the other one is as good.
    [*((tokens(n_s, 1), tokens(n_p, 2)) for n_s, n_p in ((6, 7), (1, 5), (5, 1), (16, 16))), (TWO, TWINS)],
    ids=lambda given: str(len(given.patches[0])),
)
def test_the_share_lost_without_a_pair_is_that_of_leaving_it_out(sketch: Tokens, photo: Tokens) -> None:
    engine = TorchEngine(tiny_network())
    pair = engine.align(sketch, photo)
    assert pair is not None
    lost = np.array([[lost_without(pair, i, j) for j in range(len(pair.photo))] for i in range(len(pair.sketch))])
    np.testing.assert_allclose(lost_logits(pair), lost, atol=1e-4)
    logit = np.float64(engine.relate(sketch, photo)[0])
    score = sigmoid(logit)
    drops = 1 - sigmoid(logit - lost) / score
    found = influential_pairs(engine, sketch, photo, float(score))
    expected = np.sort(drops[drops > 1e-6])[::-1][:STRONGEST]
    assert expected[0] > 1e-3, "something hangs on the pairs"
    assert [influence.drop for influence in found if influence.drop > 1e-6] == pytest.approx(expected, abs=1e-4)
    row, column = np.unravel_index(drops.argmax(), drops.shape)
    cells = int(sketch.positions[0, row]), int(photo.positions[0, column])
    assert cells == (found[0].sketch_cell, found[0].photo_cell)


def test_no_pair_is_named_if_blocks_have_no_place_as_in_released_checkpoints() -> None:
    released = TorchEngine(tiny_network(relation="kernel-mlp", released_kernel_view=True))
    assert influential_pairs(released, tokens(16, 1), tokens(16, 2), 0.5) == ()

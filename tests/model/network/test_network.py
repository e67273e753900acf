from __future__ import annotations

import pytest
import torch

from model.matcher import Matcher
from model.network.config import kept_count
from model.network.layers.encoder import EncoderTrace, select_tokens
from tests.model import plain
from tests.networks import tiny_network

CASES = [
    {},
    {"relation": "kernel-mlp"},
    {"relation": "kernel-mlp", "relation_ret": False, "keep_sketch": 1.0, "keep_photo": 1.0},
    {"relation": "kernel-mlp", "keep_sketch": 0.3, "keep_photo": 0.4, "keep_cross": 0.5},
    {"keep_sketch": 0.5, "keep_photo": 0.9, "keep_cross": 0.6},
    {"keep_sketch": 0.9, "keep_photo": 0.5, "keep_cross": 0.1, "relation": "kernel-mlp"},
    {"cross_attention": False},
    {"relation": "pair-mlp", "relation_ret": False, "keep_photo": 0.3},
    {"tokenizer": "plain", "keep_cross": 0.7},
]


def pictures(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 64, 64, generator=generator) * 2 - 1


@pytest.mark.parametrize("overrides", CASES, ids=str)
def test_scores_agree_with_a_plain_version_of_the_papers_equations(overrides: dict[str, object]) -> None:
    network = tiny_network(seed=3, **overrides)
    matcher = Matcher(network, "0" * 64, chunk=4, variants=1)
    sketches, photos = pictures(2, 1), pictures(3, 2)
    logits = matcher.relation_logits(matcher.encode(sketches, "sketch"), matcher.encode(photos, "photo"))
    expected = torch.tensor(
        [[plain.relation_logit(network.config, network.state_dict(), s, p) for p in photos] for s in sketches]
    )
    assert expected.std() > 1e-3, "the pairs must differ for the comparison to mean anything"
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("relation", ["kernel-mlp", "best-match", "pair-mlp"])
def test_every_relation_network_reads_tokens_of_a_cross_attention_in_bfloat16(relation: str) -> None:
    network = tiny_network(seed=3, relation=relation, relation_ret=False)
    exact = Matcher(network, "0" * 64)
    tokens = exact.encode(pictures(2, 1), "sketch"), exact.encode(pictures(3, 2), "photo")
    expected = exact.relation_logits(*tokens)
    rounded = Matcher(network.set_precision(torch.bfloat16), "0" * 64).relation_logits(*tokens)
    assert not torch.equal(rounded, expected)
    torch.testing.assert_close(rounded, expected, atol=0.25, rtol=0.05)


@pytest.mark.parametrize("modality", ["sketch", "photo"])
def test_encoded_tokens_and_kept_cells_agree_with_the_plain_version(modality: str) -> None:
    network = tiny_network(seed=5, keep_sketch=0.6, keep_photo=0.8)
    image = pictures(1, 7)
    tokens = network.encode(image, modality)  # type: ignore[arg-type]
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    features, cells = plain.encode(network.config, state, image[0].double(), modality)
    assert tokens.positions[0].tolist() == cells
    torch.testing.assert_close(tokens.features[0].double(), features, atol=1e-4, rtol=1e-4)


def test_tokens_leave_the_encoder_in_the_numbers_the_configuration_announces() -> None:
    network = tiny_network(keep_sketch=0.7, keep_photo=0.5)
    trace = EncoderTrace()
    tokens = network.encode(pictures(2, 0), "photo", trace)
    assert [kept.shape[1] for kept in trace.kept] == list(network.config.kept("photo")) == [8, 4]
    assert tokens.features.shape[1] == network.config.token_count("photo") == 5
    assert network.config.token_count("sketch") == 1 + 9


def test_a_trace_does_not_change_the_tokens() -> None:
    network = tiny_network()
    images = pictures(3, 4)
    traced = network.encode(images, "sketch", EncoderTrace())
    torch.testing.assert_close(traced.features, network.encode(images, "sketch").features, atol=1e-5, rtol=1e-5)


def test_a_keep_rate_means_the_decimal_number_it_was_written_as() -> None:
    assert [kept_count(n, 0.7) for n in (196, 138, 97)] == [138, 97, 68]
    assert kept_count(30, 0.1) == 3
    assert kept_count(100, 0.07) == 7
    assert kept_count(3, 0.01) == 1


def test_selection_keeps_the_most_important_in_grid_order_and_the_first_of_equals() -> None:
    importance = torch.tensor([[0.1, 0.4, 0.2, 0.4, 0.4], [0.5, 0.0, 0.0, 0.0, 0.0]])
    assert select_tokens(importance, 0.4).tolist() == [[1, 3], [0, 1]]
    assert select_tokens(importance, 1.0).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_kernel_cell_without_kept_tokens_is_zero_in_its_row_and_column() -> None:
    network = tiny_network(relation="kernel-mlp", keep_sketch=0.2, keep_photo=0.2)
    sketch, photo = network.encode(pictures(1, 1), "sketch"), network.encode(pictures(1, 2), "photo")
    pair = network.align(network.project(sketch, "sketch"), network.project(photo, "photo"))
    kernel = network.relation.kernel(*pair)[0]

    def empty(cells: torch.Tensor) -> list[int]:
        kept = {(int(c) // 4 // 2) * 2 + int(c) % 4 // 2 for c in cells}
        return sorted(set(range(4)) - kept)

    rows, columns = empty(sketch.positions[0]), empty(photo.positions[0])
    assert rows or columns
    assert (kernel[rows] == 0).all()
    assert (kernel[:, columns] == 0).all()
    full = sorted(set(range(4)) - set(rows))
    assert (kernel[full][:, sorted(set(range(4)) - set(columns))] != 0).all()


def test_the_best_match_score_ignores_where_tokens_sit() -> None:
    network = tiny_network()
    sketch, photo = network.encode(pictures(1, 1), "sketch"), network.encode(pictures(1, 2), "photo")
    order = torch.tensor([3, 0, 2, 1, 8, 7, 4, 6, 5])
    features = torch.cat([photo.features[:, :1], photo.features[:, 1:][:, order]], dim=1)
    shuffled = type(photo)(features, photo.positions)
    scores = [network.relate(network.project(sketch, "sketch"), network.project(p, "photo")) for p in (photo, shuffled)]
    torch.testing.assert_close(*scores)

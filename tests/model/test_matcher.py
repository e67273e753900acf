from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model
from model.errors import ModelError
from model.matcher import Matcher
from model.network.config import METHODS
from model.network.tokens import Tokens
from tests.networks import tiny_checkpoint, tiny_network
from tests.pictures import drawing, photo


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    path = tiny_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", methods=("rn", "ret", "fused"), fusion=0.5
    )
    return model.load(path, dtype=torch.float32, chunk=4)


@pytest.fixture(scope="module")
def sketches(matcher: Matcher) -> Tokens:
    images = [drawing(shape) for shape in ("circle", "square", "star")]
    return matcher.encode(torch.stack([matcher.prepare(image, "sketch") for image in images]), "sketch")


@pytest.fixture(scope="module")
def photos(matcher: Matcher) -> Tokens:
    images = [photo(shape, seed=seed) for seed in range(4) for shape in ("circle", "square", "star")]
    return matcher.encode(torch.stack([matcher.prepare(image, "photo") for image in images]), "photo")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_scores_do_not_depend_on_batch_or_order_at_one_chunk_size(
    data: st.DataObject, matcher: Matcher, sketches: Tokens, photos: Tokens
) -> None:
    method = data.draw(st.sampled_from(METHODS))
    whole = matcher.scores(sketches, photos, method)
    order = torch.tensor(data.draw(st.permutations(range(len(photos)))))
    cut = data.draw(st.integers(1, len(photos) - 1))
    parts = [matcher.scores(sketches, photos[part], method) for part in (order[:cut], order[cut:])]
    assert torch.equal(torch.cat(parts, dim=1), whole[:, order])
    row = data.draw(st.integers(0, len(sketches) - 1))
    assert torch.equal(matcher.scores(sketches[row : row + 1], photos, method)[0], whole[row])


# The ten tokens of 16 photos fill whole vectors of the CPU, those of 4 do not.
@pytest.mark.parametrize("chunk", [4, 16])
@pytest.mark.parametrize("overrides", [{}, {"relation": "kernel-mlp"}], ids=str)
def test_scores_in_bfloat16_do_not_depend_on_batch_or_order_either(
    overrides: dict[str, Any], chunk: int, sketches: Tokens, photos: Tokens
) -> None:
    exact = Matcher(tiny_network(methods=("rn",), **overrides), "0" * 64, chunk=chunk)
    whole = exact.scores(sketches, photos)
    matcher = Matcher(exact.network.set_precision(torch.bfloat16), "0" * 64, chunk=chunk)
    rounded = matcher.scores(sketches, photos)
    torch.testing.assert_close(rounded, whole, atol=3e-2, rtol=0)
    for shift in range(1, len(photos)):
        order = torch.arange(len(photos)).roll(shift)
        assert torch.equal(matcher.scores(sketches, photos[order]), rounded[:, order])
        assert torch.equal(matcher.scores(sketches[1:2], photos[:shift])[0], rounded[1, :shift])


@settings(max_examples=15, deadline=None)
@given(chunk=st.integers(1, 40))
def test_scores_stay_within_1e_5_across_chunk_sizes(
    chunk: int, matcher: Matcher, sketches: Tokens, photos: Tokens
) -> None:
    other = Matcher(matcher.network, matcher.checkpoint_sha256, chunk=chunk)
    for method in METHODS:
        # Fused scores are logits, which reach into the tens: there 1e-5 is meant of their size.
        torch.testing.assert_close(
            other.scores(sketches, photos, method),
            matcher.scores(sketches, photos, method),
            atol=1e-5,
            rtol=1e-5 if method == "fused" else 0,
        )


def test_an_images_tokens_do_not_depend_on_what_is_encoded_with_it(matcher: Matcher) -> None:
    images = torch.stack([matcher.prepare(photo("house", seed=seed), "photo") for seed in range(37)])
    whole = matcher.encode(images, "photo")
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    shuffled = matcher.encode(images[order], "photo")
    assert torch.equal(shuffled.features, whole.features[order])
    assert torch.equal(matcher.encode(images[20:21], "photo").features, whole.features[20:21])


def test_relation_scores_lie_between_0_and_1_and_ret_scores_are_negative_distances(
    matcher: Matcher, sketches: Tokens, photos: Tokens
) -> None:
    relation = matcher.scores(sketches, photos, "rn")
    assert relation.shape == (3, 12)
    assert relation.dtype == torch.float32
    assert ((relation > 0) & (relation < 1)).all()
    unit = [torch.nn.functional.normalize(t.ret.double(), dim=-1) for t in (sketches, photos)]
    expected = -(unit[0][:, None] - unit[1][None]).norm(dim=-1)
    torch.testing.assert_close(matcher.scores(sketches, photos, "ret").double(), expected, atol=1e-6, rtol=0)


def test_fused_is_the_relation_logit_minus_the_weighted_ret_distance(
    matcher: Matcher, sketches: Tokens, photos: Tokens
) -> None:
    logit = torch.logit(matcher.scores(sketches, photos, "rn").double())
    expected = logit + 0.5 * matcher.scores(sketches, photos, "ret").double()
    torch.testing.assert_close(matcher.scores(sketches, photos, "fused").double(), expected, atol=1e-4, rtol=1e-4)


def test_several_methods_at_once_score_as_each_by_itself(matcher: Matcher, sketches: Tokens, photos: Tokens) -> None:
    together = matcher.scores_by(sketches, photos, METHODS)
    assert set(together) == set(METHODS)
    for method, scores in together.items():
        assert torch.equal(scores, matcher.scores(sketches, photos, method))


def test_no_method_named_means_the_checkpoints_best(matcher: Matcher, sketches: Tokens, photos: Tokens) -> None:
    assert torch.equal(matcher.scores(sketches, photos), matcher.scores(sketches, photos, matcher.best_method))


def test_a_method_that_was_not_trained_is_refused_by_name(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "ret.safetensors", methods=("ret",), best_method="ret"))
    tokens = matcher.encode(matcher.prepare(drawing("star"), "sketch")[None], "sketch")
    with pytest.raises(ModelError, match="cannot score by 'rn', only by ret"):
        matcher.scores(tokens, tokens, "rn")


def test_images_of_another_size_are_refused(matcher: Matcher) -> None:
    with pytest.raises(ModelError, match=r"images must be \(b, 3, 64, 64\)"):
        matcher.encode(torch.zeros(1, 3, 32, 64), "photo")


def test_a_device_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors")
    with pytest.raises(ModelError, match="use cpu"):
        model.load(path, device="xpu:7")


def test_the_precision_chosen_by_itself_keeps_scores_within_a_hundredth(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", seed=2)
    exact, fast = model.load(path, dtype=torch.float32), model.load(path)
    sketch, gallery = drawing("house"), [photo("house", seed=seed) for seed in range(8)]
    scores = []
    for matcher in (exact, fast):
        s = matcher.encode(matcher.prepare(sketch, "sketch")[None], "sketch")
        p = matcher.encode(torch.stack([matcher.prepare(image, "photo") for image in gallery]), "photo")
        scores.append(torch.stack([matcher.scores(s, p, "rn"), matcher.scores(s, p, "ret")]))
    torch.testing.assert_close(*scores, atol=1e-2, rtol=0)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model
from model.engine import METHODS, Tokens, unit
from model.errors import ModelError
from model.matcher import Matcher
from tests.networks import tiny_checkpoint
from tests.pictures import drawing, photo


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    path = tiny_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", methods=("rn", "ret", "fused"), fusion=0.5
    )
    return model.load(path, dtype="float32")


@pytest.fixture(scope="module")
def sketches(matcher: Matcher) -> Tokens:
    images = [drawing(shape) for shape in ("circle", "square", "star")]
    return matcher.encode(np.stack([matcher.prepare(image, "sketch") for image in images]), "sketch")


@pytest.fixture(scope="module")
def photos(matcher: Matcher) -> Tokens:
    images = [photo(shape, seed=seed) for seed in range(4) for shape in ("circle", "square", "star")]
    return matcher.encode(np.stack([matcher.prepare(image, "photo") for image in images]), "photo")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_scores_do_not_depend_on_batch_or_order(
    data: st.DataObject, matcher: Matcher, sketches: Tokens, photos: Tokens
) -> None:
    method = data.draw(st.sampled_from(METHODS))
    whole = matcher.scores(sketches, photos, method)
    order = np.array(data.draw(st.permutations(range(len(photos)))))
    cut = data.draw(st.integers(1, len(photos) - 1))
    parts = [matcher.scores(sketches, photos[part], method) for part in (order[:cut], order[cut:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole[:, order], atol=1e-4)
    row = data.draw(st.integers(0, len(sketches) - 1))
    np.testing.assert_allclose(matcher.scores(sketches[row : row + 1], photos, method)[0], whole[row], atol=1e-4)


def test_an_images_tokens_do_not_depend_on_what_is_encoded_with_it(matcher: Matcher) -> None:
    images = np.stack([matcher.prepare(photo("house", seed=seed), "photo") for seed in range(37)])
    whole = matcher.encode(images, "photo")
    order = np.random.default_rng(1).permutation(37)
    shuffled = matcher.encode(images[order], "photo")
    np.testing.assert_allclose(shuffled.features, whole.features[order], atol=1e-4)
    np.testing.assert_allclose(matcher.encode(images[20:21], "photo").features, whole.features[20:21], atol=1e-4)


def test_relation_scores_lie_between_0_and_1_and_ret_scores_are_negative_distances(
    matcher: Matcher, sketches: Tokens, photos: Tokens
) -> None:
    relation = matcher.scores(sketches, photos, "rn")
    assert relation.shape == (3, 12)
    assert relation.dtype == np.float32
    assert ((relation > 0) & (relation < 1)).all()
    drawn, seen = unit(sketches.ret), unit(photos.ret)
    expected = -np.linalg.norm(drawn[:, None] - seen[None], axis=-1)
    np.testing.assert_allclose(matcher.scores(sketches, photos, "ret"), expected, atol=1e-4)


def test_fused_is_the_relation_logit_minus_the_weighted_ret_distance(
    matcher: Matcher, sketches: Tokens, photos: Tokens
) -> None:
    score = matcher.scores(sketches, photos, "rn").astype(np.float64)
    expected = np.log(score / (1 - score)) + 0.5 * matcher.scores(sketches, photos, "ret")
    np.testing.assert_allclose(matcher.scores(sketches, photos, "fused"), expected, atol=1e-3, rtol=1e-4)


def test_several_methods_at_once_score_as_each_by_itself(matcher: Matcher, sketches: Tokens, photos: Tokens) -> None:
    together = matcher.scores_by(sketches, photos, METHODS)
    assert set(together) == set(METHODS)
    for method, scores in together.items():
        assert np.array_equal(scores, matcher.scores(sketches, photos, method))


def test_no_method_named_means_the_checkpoints_best(matcher: Matcher, sketches: Tokens, photos: Tokens) -> None:
    assert np.array_equal(matcher.scores(sketches, photos), matcher.scores(sketches, photos, matcher.best_method))


def test_a_method_that_was_not_trained_is_refused_by_name(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "ret.safetensors", methods=("ret",), best_method="ret"))
    tokens = matcher.encode(matcher.prepare(drawing("star"), "sketch")[None], "sketch")
    with pytest.raises(ModelError, match="cannot score by 'rn', only by ret"):
        matcher.scores(tokens, tokens, "rn")


def test_images_of_another_size_are_refused(matcher: Matcher) -> None:
    with pytest.raises(ModelError, match=r"images must be \(b, 3, 64, 64\)"):
        matcher.encode(np.zeros((1, 3, 32, 64), np.float32), "photo")


def test_a_device_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors")
    with pytest.raises(ModelError, match="use cpu"):
        model.load(path, device="xpu:7")

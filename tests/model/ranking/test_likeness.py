"""Kinds, copies and likes against plain walks over all pairs of photos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import model
from indexer.samples import draw_photo
from model import ranking
from model.engine import Floats, Tokens, unit
from model.ranking import (
    ALIKE,
    LOOK,
    LOOKED_AT,
    SAME,
    SAME_BY_RET,
    centred,
    first_of_same,
    groups_of,
    likeness_to,
    pairs_to_compare,
    sameness,
)
from tests.pictures import SHAPES, encoded, photo


def of_all_lengths(seed: int, photos: int) -> Floats:
    """[Ret] in a few loose groups, of all lengths."""
    generator = np.random.default_rng(seed)
    ret = generator.standard_normal((4, 8))[np.arange(photos) % 4] + 0.7 * generator.standard_normal((photos, 8))
    return (ret * np.exp(generator.standard_normal((photos, 1)))).astype(np.float32)


def mean_direction(ret: Floats) -> Floats:
    mean: Floats = unit(ret).mean(axis=0)
    return mean


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), photos=st.integers(1, 60), examples=st.integers(1, 5))
def test_it_is_the_highest_cosine_of_what_is_left_without_the_mean(seed: int, photos: int, examples: int) -> None:
    ret, others = of_all_lengths(seed, photos), of_all_lengths(seed + 1, examples)
    mean = mean_direction(of_all_lengths(seed + 2, 50))
    expected = (centred(ret, mean) @ centred(others, mean).T).max(axis=1)
    assert likeness_to(others, ret, mean) == pytest.approx(expected, abs=1e-4)


def test_a_photo_that_is_exactly_the_mean_is_like_no_photo() -> None:
    same = np.ones((3, 8), np.float32)
    assert likeness_to(same[:1], same, mean_direction(same)).tolist() == [0, 0, 0]
    assert likeness_to(same[:1], same[:0], mean_direction(same)).tolist() == []


def gallery(seed: int, photos: int, groups: int = 4) -> Floats:
    """[Ret] in a few loose groups, with something that all of them share."""
    generator = np.random.default_rng(seed)
    ret = generator.standard_normal((groups, 8))[generator.integers(groups, size=photos)]
    return (3 * (ret + 0.5 * generator.standard_normal((photos, 8)) + 0.7)).astype(np.float32)


def walked(ret: Floats, mean: Floats, threshold: float) -> list[int]:
    directions = unit(unit(ret) - mean)
    cosines = (directions @ directions.T).tolist()
    firsts: list[int] = []
    kinds: list[int] = []
    for row in range(len(ret)):
        like = [kind for kind, first in enumerate(firsts) if cosines[first][row] > threshold]
        kinds.append(like[0] if like else len(firsts))
        if not like:
            firsts.append(row)
    return kinds


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    photos=st.integers(0, 40),
    threshold=st.sampled_from([-0.5, 0.0, ALIKE, 0.8, 0.99]),
)
def test_a_photo_joins_the_first_kind_whose_first_photo_it_looks_like(seed: int, photos: int, threshold: float) -> None:
    ret = gallery(seed, photos)
    mean = mean_direction(gallery(seed + 1, 50))
    found = groups_of(ret, mean, threshold)
    assert found.dtype == np.int64
    assert found.tolist() == walked(ret, mean, threshold)


GRID = 4


def pictures(seed: int, count: int, patches: int = 5) -> Tokens:
    """Pictures of which some are nearly alike, with tokens at some cells of the grid."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((3, patches + 1, 6))[generator.integers(3, size=count)]
    features += 0.3 * generator.standard_normal(features.shape)
    cells = [np.sort(generator.permutation(GRID * GRID)[:patches]) for _ in range(count)]
    return Tokens(features.astype(np.float32), np.array(cells, np.int64).reshape(count, patches))


def cosine(one: Floats, other: Floats) -> float:
    return float(unit(one) @ unit(other))


def plain_sameness(tokens: Tokens, one: int, other: int) -> float:
    def best(here: int, there: int) -> float:
        total = 0.0
        for patch, cell in zip(tokens.patches[here], tokens.positions[here].tolist(), strict=True):
            found = 0.0
            for another, place in zip(tokens.patches[there], tokens.positions[there].tolist(), strict=True):
                if abs(cell // GRID - place // GRID) <= 1 and abs(cell % GRID - place % GRID) <= 1:
                    found = max(found, cosine(patch, another))
            total += found
        return total / len(tokens.positions[here])

    return (best(one, other) + best(other, one)) / 2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 9))
def test_each_photo_is_compared_with_the_most_similar_ones_before_it(seed: int, count: int) -> None:
    ret = pictures(seed, count).ret
    expected = []
    for later in range(count):
        cosines = [(cosine(ret[later], ret[place]), place) for place in range(later)]
        nearest = sorted(cosines, reverse=True)[:LOOKED_AT]
        expected += [(later, place) for cosine, place in nearest if cosine > LOOK]
    assert [tuple(pair) for pair in pairs_to_compare(ret).tolist()] == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 6), batch=st.integers(1, 4))
def test_sameness_is_what_the_best_matches_nearby_say(seed: int, count: int, batch: int) -> None:
    tokens = pictures(seed, count)
    pairs = np.array([(one, other) for one in range(count) for other in range(count)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_PAIRS", batch)
        found = sameness(tokens, pairs, GRID)
    expected = [plain_sameness(tokens, one, other) for one, other in pairs.tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[pairs[:, 0] == pairs[:, 1]], 1, atol=1e-5)


def test_without_patch_tokens_only_ret_decides() -> None:
    angles = np.array([0.0, 0.5 * (1 - SAME_BY_RET), 1.0], np.float32)
    ret = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    pairs = np.array([(1, 0), (2, 0), (2, 1)])
    assert sameness(Tokens.of_ret(ret), pairs, GRID).tolist() == [1.0, 0.0, 0.0]
    assert sameness(Tokens.of_ret(ret), pairs[:0], GRID).tolist() == []


def test_a_burst_is_one_and_photos_that_somebody_named_stand_for_themselves() -> None:
    burst = [(1, 0), (3, 1), (4, 3), (4, 2), (5, 2)]
    assert first_of_same(7, burst).tolist() == [0, 0, 2, 0, 0, 2, 6]
    assert first_of_same(7, burst, own=4).tolist() == [0, 1, 2, 3, 3, 2, 6]
    assert first_of_same(0, []).tolist() == []


def test_the_network_that_comes_along_knows_copies_and_tells_other_photos_apart() -> None:
    matcher = model.load()
    originals = [photo(shape, 512, seed=number) for number, shape in enumerate(SHAPES[:2])]
    copies = []
    for original in originals:
        width, height = original.size
        copies += [
            encoded(original, "JPEG", quality=40),
            encoded(original.resize((width // 2, height // 2), Image.Resampling.LANCZOS), "JPEG", quality=85),
            encoded(original.crop((6, 6, width - 6, height - 4)), "JPEG", quality=85),
        ]
    others = [photo(shape, 512, seed=number) for number, shape in enumerate(SHAPES[2:4], 2)]
    # Drawings of one thing, in styles that are alike.
    others += [draw_photo("star", 1), draw_photo("star", 3), draw_photo("star", 4)]
    others += [draw_photo("bicycle", 1), draw_photo("bicycle", 4)]
    opened = [*originals, *(matcher.open(data, "photo") for data in copies), *others]
    tokens = matcher.encode(np.stack([matcher.prepare(picture, "photo") for picture in opened]), "photo")
    grid = matcher.config.grid
    pairs = pairs_to_compare(tokens.ret)
    same = pairs[sameness(tokens, pairs, grid) > SAME].tolist()
    firsts = first_of_same(len(opened), [(photo, earlier) for photo, earlier in same]).tolist()
    assert firsts == [0, 1, 0, 0, 0, 1, 1, 1, *range(8, len(opened))]

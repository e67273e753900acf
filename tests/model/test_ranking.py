import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sketch_search.indexer.samples import draw_photo
from sketch_search.model import Matcher, ranking
from sketch_search.model.engine import METHODS, Floats, Method, Tokens, sigmoid, unit
from tests.pictures import SHAPES, encoded, photo
from tests.searching import mean_direction

THRESHOLD = 0.4
RANGES = {"rn": (0.0, 1.0), "ret": (-2.0, 0.0), "fused": (-12.0, 12.0)}


def grouped(seed: int, photos: int) -> Floats:
    """[Ret] of all lengths, in four loose groups that share something."""
    generator = np.random.default_rng(seed)
    ret = generator.standard_normal((4, 8))[np.arange(photos) % 4] + 0.6 * generator.standard_normal((photos, 8)) + 0.7
    return (ret * np.exp(generator.standard_normal((photos, 1)))).astype(np.float32)


def scored_loosely(seed: int, photos: int, sketches: int = 2) -> tuple[dict[str, Floats], Floats]:
    uniform = np.random.default_rng(seed).random((sketches, photos), np.float32)
    scores = {name: np.float32(low) + np.float32(high - low) * uniform for name, (low, high) in RANGES.items()}
    return scores, grouped(seed, photos)


def centred_slowly(ret: NDArray[np.floating]) -> NDArray[np.float64]:
    unit = ret.astype(np.float64) / np.linalg.norm(ret, axis=1, keepdims=True)
    unit = unit - unit.mean(axis=0)
    return unit / np.linalg.norm(unit, axis=1, keepdims=True)


def written_out(scores: NDArray[np.float64], ret: Floats, method: str) -> NDArray[np.float64]:
    """Diffuses the scores (p,) of one sketch, pair by pair."""
    unit = centred_slowly(ret)
    support = {"rn": scores, "ret": np.exp(-(scores**2) / 0.2), "fused": np.exp((scores - scores.max()) / 2)}[method]
    for _ in range(3):
        rows = []
        for i in range(len(ret)):
            weights = np.array(
                [1 - THRESHOLD if i == j else max(0.0, unit[i] @ unit[j] - THRESHOLD) for j in range(len(ret))]
            )
            rows.append(weights @ support / weights.sum())
        support = np.array(rows)
    back: dict[str, NDArray[np.float64]] = {
        "rn": support,
        "ret": -np.sqrt(-0.2 * np.log(support)),
        "fused": scores.max() + 2 * np.log(support),
    }
    return back[method]


@pytest.mark.parametrize("method", METHODS)
def test_three_rounds_average_each_photo_with_those_above_the_threshold(method: Method) -> None:
    scores, ret = scored_loosely(seed=1, photos=30)
    after = ranking.diffuse(scores[method], ret, THRESHOLD, method)
    for row in range(2):
        expected = written_out(scores[method][row].astype(np.float64), ret, method)
        np.testing.assert_allclose(after[row], expected, atol=1e-5, rtol=1e-5)


def test_only_the_shortlist_is_diffused_and_the_rest_follow_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SHORTLIST", 6)
    scores, ret = scored_loosely(seed=3, photos=20, sketches=1)
    before, after = scores["rn"], ranking.diffuse(scores["rn"], ret, THRESHOLD, "rn")
    order = np.argsort(-before[0])
    first, rest = order[:6], order[6:]
    np.testing.assert_allclose(
        after[0, first], ranking.diffuse(before[:, first], ret[first], THRESHOLD, "rn")[0], atol=1e-6
    )
    assert (after[0, rest] <= after[0, first].min()).all()
    assert (np.diff(after[0, rest]) <= 0).all()


LIKE = 0.3
PHOTOS = 12


def scored_gallery(seed: int) -> tuple[Floats, Floats, Floats]:
    """Scores that fall with the distance, more or less; the distances; and [Ret]."""
    generator = np.random.default_rng(seed)
    distances = 0.8 + 0.4 * generator.random(PHOTOS)
    scores = sigmoid(3 - 5 * distances + 0.5 * generator.standard_normal(PHOTOS))
    return scores.astype(np.float32), distances.astype(np.float32), grouped(seed, PHOTOS)


def some(count: int) -> NDArray[np.bool_]:
    return np.arange(PHOTOS) % (PHOTOS // count) == 0


@pytest.mark.parametrize("method", ["rn", "fused"])
def test_a_score_is_the_line_by_distance_and_what_photos_like_it_lie_off_it(method: Method) -> None:
    scores, distances, ret = scored_gallery(seed=1)
    if method == "fused":
        scores = 10 * scores - 7
    known, unit = some(4), centred_slowly(ret)
    values = {i: float(scores[i]) for i in range(PHOTOS) if known[i]}
    if method == "rn":
        values = {i: math.log(value / (1 - value)) for i, value in values.items()}
    slope, start = np.polyfit([float(distances[i]) for i in values], list(values.values()), 1)
    assert slope < 0
    after = ranking.estimate(scores, known, distances, ret, LIKE, method)
    for i in range(PHOTOS):
        if known[i]:
            assert after[i] == scores[i]
            continue
        alike = {j: max(0.0, float(unit[i] @ unit[j]) - LIKE) for j in values}
        off = sum(weight * (values[j] - start - slope * float(distances[j])) for j, weight in alike.items())
        likely = start + slope * float(distances[i]) + off / (ranking.PRIOR_WEIGHT + sum(alike.values()))
        assert float(after[i]) == pytest.approx(1 / (1 + math.exp(-likely)) if method == "rn" else likely, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), photos=st.integers(1, 60), examples=st.integers(1, 5))
def test_it_is_the_highest_cosine_of_what_is_left_without_the_mean(seed: int, photos: int, examples: int) -> None:
    ret, others = grouped(seed, photos), grouped(seed + 1, examples)
    mean = mean_direction(grouped(seed + 2, 50))
    expected = (ranking.centre(ret, mean) @ ranking.centre(others, mean).T).max(axis=1)
    assert ranking.likeness_to(others, ret, mean) == pytest.approx(expected, abs=1e-4)


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
    threshold=st.sampled_from([-0.5, 0.0, ranking.ALIKE, 0.8, 0.99]),
)
def test_a_photo_joins_the_first_kind_whose_first_photo_it_looks_like(seed: int, photos: int, threshold: float) -> None:
    ret, mean = grouped(seed, photos), mean_direction(grouped(seed + 1, 50))
    found = ranking.groups_of(ret, mean, threshold)
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

    near = max(0, cosine(tokens.ret[one], tokens.ret[other]))
    return ranking.SAME_RET * near + (1 - ranking.SAME_RET) * (best(one, other) + best(other, one)) / 2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 9))
def test_each_photo_is_compared_with_the_most_similar_ones_before_it(seed: int, count: int) -> None:
    ret = pictures(seed, count).ret
    expected = []
    for later in range(count):
        cosines = [(cosine(ret[later], ret[place]), place) for place in range(later)]
        nearest = sorted(cosines, reverse=True)[: ranking.LOOKED_AT]
        expected += [(later, place) for cosine, place in nearest if cosine > ranking.LOOK]
    assert [tuple(pair) for pair in ranking.pairs_to_compare(ret).tolist()] == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 6), batch=st.integers(1, 4))
def test_sameness_is_what_the_best_matches_nearby_say(seed: int, count: int, batch: int) -> None:
    tokens = pictures(seed, count)
    pairs = np.array([(one, other) for one in range(count) for other in range(count)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_PAIRS", batch)
        found = ranking.sameness(tokens, pairs, GRID)
    expected = [plain_sameness(tokens, one, other) for one, other in pairs.tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[pairs[:, 0] == pairs[:, 1]], 1, atol=1e-5)


def test_without_patch_tokens_only_ret_decides() -> None:
    angles = np.array([0.0, 0.5 * (1 - ranking.SAME_BY_RET), 1.0], np.float32)
    ret = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    pairs = np.array([(1, 0), (2, 0), (2, 1)])
    assert ranking.sameness(Tokens.of_ret(ret), pairs, GRID).tolist() == [1.0, 0.0, 0.0]
    assert ranking.sameness(Tokens.of_ret(ret), pairs[:0], GRID).tolist() == []


def test_a_burst_is_one_and_photos_that_somebody_named_stand_for_themselves() -> None:
    burst = [(1, 0), (3, 1), (4, 3), (4, 2), (5, 2)]
    assert ranking.first_of_same(7, burst).tolist() == [0, 0, 2, 0, 0, 2, 6]
    assert ranking.first_of_same(7, burst, own=4).tolist() == [0, 1, 2, 3, 3, 2, 6]
    assert ranking.first_of_same(0, []).tolist() == []


def test_the_network_that_comes_along_knows_copies_and_tells_other_photos_apart(default: Matcher) -> None:
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
    # Drawings of one thing, in styles that are alike, of which two have the same outline in the same place.
    others += [draw_photo("fish", 4), draw_photo("fish", 8), draw_photo("umbrella", 7), draw_photo("umbrella", 11)]
    others += [draw_photo("star", 1), draw_photo("star", 3), draw_photo("star", 4)]
    others += [draw_photo("bicycle", 1), draw_photo("bicycle", 4)]
    opened = [*originals, *(default.open(data, "photo") for data in copies), *others]
    tokens = default.encode(np.stack([default.prepare(picture, "photo") for picture in opened]), "photo")
    grid = default.config.grid
    pairs = ranking.pairs_to_compare(tokens.ret)
    same = [(photo, earlier) for photo, earlier in pairs[ranking.sameness(tokens, pairs, grid) > ranking.SAME].tolist()]
    assert ranking.first_of_same(len(opened), same).tolist() == [0, 1, 0, 0, 0, 1, 1, 1, *range(8, len(opened))]

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sketch_search.indexer.samples import draw_photo
from sketch_search.model import Matcher, ranking
from sketch_search.model.engine import METHODS, Floats, Method, Tokens
from tests.pictures import SHAPES, encoded, photo

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


def test_photos_share_readings_by_log_odds_and_by_rank() -> None:
    # By log-odds 3/4 and 1/4, and 0 and 1; by rank 2/3 and 1/3, and 0 and 1; the latter count a quarter.
    odds = np.array([[ranking.SOFT * np.log(3), 0], [-np.inf, 7]])
    first = 0.75 * 0.75 + 0.25 * 2 / 3
    np.testing.assert_allclose(ranking.mix(odds, np.array([0.8, 0.2])), [0.8 * first, 1 - 0.8 * first])
    assert np.diff(ranking.mix(odds, np.array([0.5, 0.5]))) > 0
    # A reading that no photo fits has no favourite.
    odds = np.array([[9.0, 0, 0, -9], [0, 1, 0, 0], [0, 9, 0, 0]])
    flat, surely = (ranking.mix(odds[[0, row]], np.array([0.6, 0.4])) for row in (1, 2))
    assert flat.argmax() == surely.argmax() == 0
    assert surely[1] - surely[2] > 2 * (flat[1] - flat[2])


@given(st.integers(0, 99), st.integers(1, 40), st.floats(0.1, 0.9))
def test_a_probable_reading_loses_no_photo_and_an_impossible_one_does_nothing(seed: int, photos: int, p: float) -> None:
    odds = np.random.default_rng(seed).standard_normal((2, photos)) * [[0.1], [30]]
    mixed = ranking.mix(odds, np.array([p, 1 - p]))
    assert mixed.sum() == pytest.approx(1)
    order, ranks = np.argsort(-odds[0]), np.arange(1, photos + 1)
    least = p * ranking.BY_RANK / (ranks * (1 / ranks).sum())
    assert (mixed[order] >= least).all()
    assert ((mixed[:, None] < mixed).sum(axis=1)[order] < 1 / least).all()
    # What both readings put before another photo stays before it; and an impossible reading does nothing.
    assert (mixed[:, None] > mixed)[(odds[:, :, None] > odds[:, None]).all(axis=0)].all()
    alone = ranking.mix(odds[:1], np.ones(1))
    assert (ranking.mix(odds, np.array([1.0, 0])) == alone).all()
    assert (np.argsort(-alone) == order).all()


@pytest.mark.parametrize("method", METHODS)
def test_three_rounds_average_each_photo_with_those_above_the_threshold(method: Method) -> None:
    scores, ret = scored_loosely(seed=1, photos=30)
    after = ranking.diffuse(scores[method], ret, THRESHOLD, method)
    for row in range(2):
        expected = written_out(scores[method][row].astype(np.float64), ret, method)
        np.testing.assert_allclose(after[row], expected, atol=1e-5, rtol=1e-5)


GRID = 4


def test_scores_keep_their_order_however_far_down_they_were_weighed() -> None:
    scores = ranking.weigh(np.array([0.9, 0.5, 0.2], np.float32), np.array([-30, -32, -31]), "rn")
    assert np.argsort(-ranking.weigh(scores, np.array([-3, -3.2, -3.1]), "rn")).tolist() == [0, 1, 2]


def test_without_patch_tokens_only_ret_decides() -> None:
    angles = np.array([0.0, 0.5 * (1 - ranking.SAME_BY_RET), 1.0], np.float32)
    ret = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    pairs = np.array([(1, 0), (2, 0), (2, 1)])
    assert ranking.sameness(Tokens.of_ret(ret), pairs, GRID).tolist() == [1.0, 0.0, 0.0]
    assert ranking.sameness(Tokens.of_ret(ret), pairs[:0], GRID).tolist() == []


def test_a_burst_is_one_and_photos_that_somebody_named_stand_for_themselves() -> None:
    burst = [(1, 0), (3, 1), (4, 3), (4, 2), (5, 2)]
    assert ranking.first_of_same(7, burst).tolist() == [0, 0, 2, 0, 0, 2, 6]
    assert ranking.first_of_same(7, burst, liked=4).tolist() == [0, 1, 2, 3, 3, 2, 6]
    assert ranking.first_of_same(0, []).tolist() == []


def test_shots_are_consecutive_by_the_numbers_of_one_folder() -> None:
    names = "a/DSC_0100.JPG a/DSC_0102.JPG b/DSC_0101.JPG a/DSC_0103.JPG a/DSC_0106.JPG a/DSC_0104.NEF a/BURST-02.jp2"
    paths: list[tuple[str, ...]] = [(name,) for name in names.split()]
    # The second file of a photo counts, too; a number alone, or of a few digits, is not a camera's.
    numbers = ["10.jpg", "11.jpg", "cat 3.jpg", "cat 4.jpg", "p10.png", "p11.png"]
    paths += [("a/x.jpg", "a/BURST-03.jp2"), *((name,) for name in numbers)]
    assert ranking.consecutive(paths).tolist() == [[1, 0], [3, 1], [7, 6]]
    assert ranking.consecutive([()] * 3).tolist() == []


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


@given(st.lists(st.floats(0, 1, width=32), max_size=12))
def test_the_nearest_falling_sequence_has_the_means_of_neighbours_that_would_rise(values: list[float]) -> None:
    levels = ranking.falling(np.array(values))
    assert (np.diff(levels) <= 1e-12).all()
    assert levels.sum() == pytest.approx(sum(values), abs=1e-6)
    np.testing.assert_allclose(ranking.falling(levels), levels, atol=1e-12)
    assert ranking.falling(np.array([0.9, 0.2, 0.4, 0.1, 0.3])) == pytest.approx([0.9, 0.3, 0.3, 0.2, 0.2])
    assert ranking.falling(np.array([0.1, 0.2, 0.6])) == pytest.approx([0.3, 0.3, 0.3])

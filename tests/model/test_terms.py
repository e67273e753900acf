"""Each term of a search for one thing is a number of a photo and the query; their weights add up."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sketch_search.model import Matcher
from sketch_search.model.engine import FACTS, TERMS, UNFITTED, Calibration, Floats, Tokens, Weights
from sketch_search.model.errors import ModelError
from sketch_search.model.ranking import SPREAD, diffuse, diffuse_kinship, evidence_of_words, logits, mix
from sketch_search.model.search import Candidates, Query
from sketch_search.model.search.stages import mix_readings
from sketch_search.model.search.terms import (
    BACKED,
    BESIDE_LIKED,
    DENIED,
    KINDRED,
    LIKELY,
    SURELY,
    backing,
    facts_of,
    is_shown,
    kinship_of,
    odds_shown,
    signs_of,
    terms_of,
    weigh_terms,
)
from sketch_search.model.things import FIT, Matched, Thing

BEFORE, AFTER = np.array([0.9, 0.2, 0.6], np.float32), np.array([0.7, 0.1, 0.5], np.float32)
FITS, REGIONS = np.array([[0.0, 0.4, 0.9]], np.float32), np.array([0.1, 0.3, -0.2], np.float32)
HALF = np.float32(0.5)
WORD = np.array([3.0, 2.5, -4.0], np.float32)


def thing(matcher: Matcher, **how: Any) -> Thing:
    return Thing(Tokens.of_ret(np.ones((1, matcher.config.width), np.float32)), (0.0, 0.0, 0.5, 0.5), **how)


def candidates(matcher: Matcher, **columns: Any) -> Candidates:
    vectors = np.random.default_rng(0).standard_normal((3, matcher.config.width)).astype(np.float16)
    rows, known = np.arange(3), {"scores": AFTER, "before": BEFORE, "by_vector": -AFTER}
    return Candidates(**{"rows": rows, "ids": rows, "vectors": vectors, **known, **columns})


def with_boxes(matcher: Matcher, **columns: Any) -> Candidates:
    empty = np.zeros((1, 3, 0))
    cells, colours, boxes = np.zeros((1, 3), np.int64), np.zeros((1, 3, 3), np.float32), np.zeros((1, 3, 6), np.uint8)
    regions, extents = empty.astype(np.float16), empty.astype(np.bool_)
    matched = Matched(REGIONS[None], cells, regions, colours, extents, boxes, FITS, FITS * HALF, FITS)
    return candidates(matcher, matched=matched, region_scores=REGIONS + FIT * FITS[0], **columns)


def query(matcher: Matcher, **parts: Any) -> Query:
    return Query("rn", np.zeros(matcher.config.width, np.float32), **parts)


def test_a_drawing_alone_has_only_the_terms_of_its_pairs(default: Matcher) -> None:
    terms = terms_of(candidates(default), default, query(default))
    assert list(terms) == ["diffused", "pair"]
    np.testing.assert_allclose(terms["diffused"], np.log(AFTER / (1 - AFTER)), atol=1e-5)
    odds = np.log(BEFORE / (1 - BEFORE))
    np.testing.assert_allclose(terms["pair"], odds - odds.min(), atol=1e-5)
    assert list(terms_of(candidates(default, before=None), default, query(default))) == ["diffused"]
    assert list(terms_of(candidates(default), default, replace(query(default), method="ret"))) == ["diffused"]


def test_each_part_of_a_query_brings_its_own_terms(default: Matcher) -> None:
    photos = with_boxes(default, by_word=WORD)
    terms = terms_of(photos, default, query(default, word=((0,),), things=(thing(default),)))
    assert set(TERMS) - set(terms) == {"kinship", "kind"}
    # Photos that show the word nearly as well as the best one are of its kind, so that the drawing orders them.
    expected = {
        "word": [0, 0, -7 + SPREAD],
        "region": REGIONS - 0.3,
        "box": FITS[0] - 0.9,
        "presence": FITS[0] / 2 - 0.45,
    }
    for term, values in expected.items():
        np.testing.assert_allclose(terms[term], np.array(values, np.float32), atol=1e-6)


def test_photos_of_the_kind_of_a_liked_one_lose_nothing_and_others_by_how_far_they_are(default: Matcher) -> None:
    photos = candidates(default, likeness=np.array([1.0, 0.2, 0.1], np.float32))
    asked = query(default, liked=photos.vectors[:1].astype(np.float32))
    terms, kinship = terms_of(photos, default, asked), kinship_of(photos, default, asked)
    assert (kinship < KINDRED).tolist() == [False, True, True]
    np.testing.assert_allclose(terms["kinship"], np.minimum(kinship - KINDRED, 0), atol=1e-6)
    spread = diffuse_kinship(kinship, photos.vectors, default.diffusion_threshold)
    # Of so few photos all are of the kind.
    np.testing.assert_allclose(terms["kind"], np.minimum(spread - spread.min(), 0), atol=1e-6)
    facts = facts_of(photos, default, asked)
    assert facts == {"always": 1, "liked": 1, "worded": 0, "strange": pytest.approx((kinship <= LIKELY).mean())}
    without = terms_of(replace(photos, before=None), default, asked)
    assert list(without) == ["diffused", "kind"]


def test_facts_say_what_goes_with_a_drawing_and_how_sure_its_parts_are(default: Matcher) -> None:
    photos, drawn = with_boxes(default), thing(default)
    sure, backed = float(default.sureness([drawn])[0]), backing(AFTER, FITS[0])
    assert 0 < backed < 1
    alone = facts_of(photos, default, query(default, things=(drawn,)))
    assert alone == pytest.approx(
        {"always": 1, "liked": 0, "worded": 0, "named": 0, "coloured": 0, "placed": 0.5, "sure": sure, "backed": backed}
    )
    red = thing(default, colours=np.zeros((1, 3), np.float32), shares=np.ones(1, np.float32))
    coloured = facts_of(photos, default, query(default, things=(red,)))
    assert coloured == pytest.approx(alone | {"coloured": 1, "placed": 1, "sure": 1})
    worded = replace(photos, by_word=WORD)
    named = facts_of(worded, default, query(default, word=((0,),), things=(thing(default, words=(0,)),)))
    assert named == pytest.approx(alone | {"worded": 1, "named": 1, "sure": 1, "backed": 1})
    liked = query(default, things=(drawn,), liked=np.ones((1, default.config.width), np.float32))
    beside = facts_of(replace(photos, likeness=FITS[0]), default, liked)
    assert beside["backed"] == pytest.approx(BESIDE_LIKED * backed)
    assert {*alone, *beside} == set(FACTS)


def test_boxes_count_as_far_as_the_first_photos_by_the_drawing_show_them() -> None:
    scores = np.arange(40, 0, -1).astype(np.float32)
    kinds = np.zeros((3, 40), np.float32)
    kinds[0, :20] = kinds[1, 20:] = kinds[2, 2] = 1
    low, high = BACKED
    # The only photo with a box is the third: 1 / log2(4) of what it would be first.
    expected = [1, 0, (0.5 - low) / (high - low)]
    assert [backing(scores, of_kind) for of_kind in kinds] == pytest.approx(expected)
    assert backing(scores, 0 * scores) == 1, "no kind to mislead"


def test_weights_of_facts_and_their_products_add_up_and_what_is_not_asked_counts_nothing() -> None:
    terms = {"diffused": np.array([1.0, -2.0]), "box": np.array([0.5, 0.0])}
    weights = {"diffused": {"always": 2.0, "sure": 0.5}, "box": {"placed*sure": 4.0}}
    assert weigh_terms(terms, {"always": 1.0}, weights).tolist() == [2, -4]
    assert weigh_terms(terms, {"always": 1.0, "sure": 1.0}, weights).tolist() == [2.5, -5]
    assert weigh_terms(terms, {"always": 1.0, "sure": 1.0, "placed": 0.5}, weights).tolist() == [3.5, -5]


def test_diffusion_counts_as_in_a_search_for_pairs_alone(default: Matcher) -> None:
    ret = np.random.default_rng(1).standard_normal((60, default.config.width)).astype(np.float32)
    scores = np.random.default_rng(2).random((1, 60), np.float32)
    after, odds = diffuse(scores, ret, default.diffusion_threshold, "rn"), logits(scores)[0]
    above = np.maximum(odds - np.sort(odds)[-40], 0)
    assert (above == 0).sum() == 21
    expected = logits(after)[0] + default.calibration.weights["pair"]["always"] * above
    np.testing.assert_allclose(logits(default.diffuse(scores, ret, "rn"))[0], expected, atol=1e-3)


def test_weights_of_what_no_search_knows_are_refused() -> None:
    assert Calibration().weights == UNFITTED
    for unknown in ({"boxes": {"always": 1.0}}, {"box": {"placed*certain": 1.0}}):
        with pytest.raises(ModelError, match="install a newer sketch-search"):
            Calibration(weights=unknown)
        with pytest.raises(ModelError, match="install a newer sketch-search"):
            Calibration(shown=unknown)


def sketched(matcher: Matcher, **parts: Any) -> Query:
    tokens = Tokens.of_ret(np.ones((1, matcher.config.width), np.float32))
    return query(matcher, sketch=tokens, **parts)


def test_a_drawn_thing_and_words_have_the_signs_of_what_was_compared(default: Matcher) -> None:
    ((signs, facts),) = signs_of(candidates(default), default, sketched(default), drawn=True)
    assert list(signs) == ["always", "diffused", "pair"], "no guess, no region"
    np.testing.assert_allclose(signs["diffused"], np.log(AFTER / (1 - AFTER)), atol=1e-5)
    np.testing.assert_allclose(signs["pair"], np.log(BEFORE / (1 - BEFORE)) - np.log(0.2 / 0.8), atol=1e-5)
    assert {name for name, value in facts.items() if value} == {"always", "one", "single"}
    word = default.book.find("cat")
    photos = with_boxes(default, by_word=WORD)
    assert photos.matched is not None
    regions = np.full((1, 3, 64), 0.125, np.float16)
    photos = replace(photos, matched=replace(photos.matched, regions=regions))
    placed = sketched(default, word=((word,),), things=(thing(default, words=(word,)),))
    ((signs, facts),) = signs_of(photos, default, placed, drawn=True)
    ret = Tokens.of_ret(photos.vectors.astype(np.float32))
    np.testing.assert_allclose(signs["word"], default.word_scores(ret, [word])[0], atol=1e-4)
    levels = default.word_levels(ret)
    assert levels is not None
    np.testing.assert_allclose(signs["level"], levels, atol=1e-4)
    assert signs["box"].tolist() == FITS[0].tolist()
    np.testing.assert_allclose(signs["region"], default.thing_directions(placed.things)[0].sum() / 8, atol=1e-4)
    assert (facts["named"], facts["sure"], facts["known"]) == (1, 1, 1), "the detector knows cats"
    # A word that does not name what is drawn is a thing of its own, without signs of the drawing.
    snow = default.book.find("snow")
    first, (signs, facts) = signs_of(photos, default, replace(placed, word=((word,), (snow,))), drawn=True)
    assert ("one" in first[1], list(signs), facts["one"]) == (True, ["always", "word", "level"], 0)
    assert len(signs_of(photos, default, query(default, word=((word,), (snow,))), drawn=False)) == 2
    assert signs_of(photos, default, query(default), drawn=False) == []


def test_log_odds_that_photos_show_something_add_up_by_hand(default: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, drawn = candidates(default), sketched(default)
    monkeypatch.setattr(default, "calibration", replace(default.calibration, shown={}))
    assert odds_shown(photos, default, drawn, 3, drawn=True) is None, "nobody fitted weights"
    shown: Weights = {"always": {"always": -1.0, "several": 9.0}, "diffused": {"one": 2.0}, "word": {"named": 5.0}}
    monkeypatch.setattr(default, "calibration", replace(default.calibration, shown=shown))
    odds = odds_shown(photos, default, drawn, 3, drawn=True)
    assert odds is not None
    np.testing.assert_allclose(odds[:, 0], 2 * np.log(AFTER / (1 - AFTER)) - 1, atol=1e-4)
    # A photo's odds do not depend on the others.
    alone = odds_shown(photos[np.array([1])], default, drawn, 3, drawn=True)
    assert alone is not None
    np.testing.assert_allclose(alone, odds[[1]], atol=1e-6)
    two = odds_shown(photos, default, drawn, 2, drawn=True)
    assert two is not None
    np.testing.assert_allclose(two, np.where(AFTER[:, None] > 0.4, odds, -np.inf), atol=1e-6)
    by_word = odds_shown(replace(photos, by_word=-AFTER), default, drawn, 1, drawn=True)
    assert by_word is not None
    assert np.isfinite(by_word[:, 0]).tolist() == [True, True, False], "the best by words are judged, too"
    assert odds_shown(replace(photos, before=None), default, drawn, 3, drawn=True) is None, "not diffused"
    assert odds_shown(photos, default, query(default), 3, drawn=False) is None, "nothing is asked for"


def test_the_likeliest_photo_says_whether_any_shows_it() -> None:
    for best, shown in ((0.0, False), (DENIED - 0.01, False), (DENIED + 0.01, None), (SURELY + 0.01, True)):
        odds = np.array([-9.0, np.log(best / (1 - best)) if best else -np.inf])
        assert is_shown(odds) is shown
    assert is_shown(np.empty(0, np.float32)) is False


def test_words_that_name_no_thing_are_evidence_of_photos_in_half_of_such_a_reading(default: Matcher) -> None:
    photos, other = candidates(default, by_word=3 * WORD), candidates(default, scores=AFTER[::-1])
    asked = query(default, probability=0.9, worded=False)
    mixed = mix_readings(photos, replace(asked, probability=0.1), [(asked, other)])
    # With evidence in all of it, photo 1 would be before photo 2; without, photo 2 would be first.
    assert list(np.argsort(-mixed.scores)) == [0, 2, 1]
    np.testing.assert_allclose(np.sort(mixed.scores), np.sort(AFTER))
    odds = np.stack([logits(AFTER), logits(AFTER[::-1]), logits(AFTER[::-1]) + evidence_of_words(3 * WORD)])
    assert [list(np.argsort(-mix(odds[[0, row]], np.array([0.1, 0.9])))) for row in (1, 2)] == [[2, 0, 1], [0, 1, 2]]
    named = mix_readings(photos, asked, [(replace(asked, worded=True), other)])
    assert list(np.argsort(-named.scores)) == [2, 0, 1]


def test_a_division_counts_as_far_as_one_photo_shows_all_of_its_things(default: Matcher) -> None:
    sketch = Tokens.of_ret(np.ones((2, default.config.width), np.float32))
    one, two = query(default, sketch=sketch[:1]), query(default, sketch=sketch, probability=0.4)

    def order(asked: Query, shown: Floats | None, other: Floats | None, likeness: Floats | None = None) -> list[int]:
        found = candidates(default, scores=AFTER[::-1], shown=other, likeness=likeness)
        photos = candidates(default, shown=shown, likeness=likeness)
        return np.argsort(-mix_readings(photos, one, [(asked, found)]).scores).tolist()

    surely, hardly = (np.array([[best], [-9], [-9]], np.float32) for best in (3, -3))
    both, apart = np.array([[-9, -9], [2, 2], [-9, 0]], np.float32), 20 * np.eye(3, 2, dtype=np.float32) - 10
    assert order(two, hardly, both, np.ones(3, np.float32)) == [0, 2, 1], "a liked photo says nothing of the division"
    assert order(two, None, None) == [0, 2, 1]
    assert order(two, hardly, both) == [2, 0, 1]
    assert order(two, surely, both) == order(two, hardly, apart) == [0, 2, 1]
    # Things that are drawn together are more probably photographed together than each alone.
    assert order(two, surely - 2.8, both - 1) == [2, 0, 1]
    # Of the same things, known or not by their words, the first say it.
    assert order(replace(two, sketch=sketch[:1], probability=0.6), surely, hardly) == [2, 0, 1]

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageColor

from sketch_search.indexer import BuildRequest, build, open_index
from sketch_search.model.engine import UNFITTED, Projection, Tokens, Weights, unit
from sketch_search.model.engine.detector import KINDS
from sketch_search.model.engine.tokens import unpack
from sketch_search.model.images import Drawing, lab
from sketch_search.model.matcher import Matcher
from sketch_search.model.ranking import log_odds, mix, weigh
from sketch_search.model.search import encode_things, name_things, search_drawing, sketch_of, stages
from sketch_search.model.search.drawings import SURE, SURE_BESIDE
from sketch_search.model.things import PLACES, Thing
from sketch_search.model.torch import Network
from sketch_search.service.errors import BadSearch
from sketch_search.service.explain import explain, locate
from sketch_search.service.schemas.explain import ExplainParams, LocateParams
from sketch_search.service.schemas.query import TunedQuery
from tests.model.test_things import match
from tests.model.torch.test_network import SMALL, two_sided
from tests.networks import matcher_of, parting_by_distance, vocabulary
from tests.pictures import drawing, encoded
from tests.searching import Searcher
from tests.service.served import error
from tests.service.sharding.shards_here import assert_same, cut, links_to, searcher_of
from tests.service.small_gallery import CLUSTERS, PHOTOS

WIDTH, RET = 16, 24
RED = (208, 32, 32)
# Where a cross beside the star is perhaps a part of it; and three shards.
UNSURE, PARTS = 220, [photo % 3 for photo in range(PHOTOS)]


def regional_network() -> Network:
    axes = np.random.default_rng(0).normal(size=(WIDTH, RET)).astype(np.float32)
    parting = parting_by_distance(SMALL.encoder_width)
    return two_sided().projection_replaced(Projection(axes)).parting_replaced(parting)


@pytest.fixture(scope="module")
def network() -> Matcher:
    return matcher_of(regional_network(), variants=1)


@pytest.fixture(scope="module")
def folder(network: Matcher, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("regions") / "index"
    build(path, BuildRequest([gallery], clusters=CLUSTERS, embedder="ret"), network)
    return path


@pytest.fixture(scope="module")
def regional(network: Matcher, folder: Path) -> Iterator[Searcher]:
    with open_index(folder, network) as index:
        yield Searcher(index, network)


def on_paper(shape: str, x: int, ink: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    paper = Image.new("RGB", (400, 200), "white")
    small = np.asarray(drawing(shape, 100, 1).convert("L"))[..., None] / 255
    paper.paste(Image.fromarray((small * 255 + (1 - small) * np.array(ink)).astype(np.uint8)), (x, 50))
    return paper


def both(**how: Any) -> Image.Image:
    left, right = (np.asarray(on_paper(shape, x, **how)) for shape, x in (("star", 10), ("cross", 290)))
    return Image.fromarray(np.minimum(left, right))


def drawn(searcher: Searcher, *pictures: Image.Image) -> Drawing:
    preprocessing = searcher.matcher.preprocessing
    return Drawing.joined([preprocessing.drawing(picture) for picture in pictures])


def test_several_things_are_scored_where_they_stand_by_the_regions_that_the_index_keeps(regional: Searcher) -> None:
    apart = drawn(regional, on_paper("star", 10), on_paper("cross", 290))
    answer = regional.search(apart, TunedQuery(k=PHOTOS))
    assert (answer.method, answer.placed, answer.region_grid) == ("things", True, 4)
    assert [thing.box for thing in answer.things] == [thing.box for thing in apart.things]
    things = encode_things(regional.matcher, apart)
    regions, colours = regional.index.photo_regions(np.arange(PHOTOS))
    directions = regional.matcher.thing_directions(things)
    matched = match(things, directions, regions, colours, PLACES)
    whole = regional.matcher.drawing_direction(things)
    assert whole is not None
    scores = matched.diffused(directions).mean(axis=0) + unit(regional.gallery.vectors(np.arange(PHOTOS))) @ whole
    by_id = dict(zip(regional.index.ids.tolist(), zip(scores, matched.cells.T.tolist(), strict=True), strict=True))
    assert len(answer.results) == PHOTOS
    for result in answer.results:
        score, where = by_id[result.id]
        assert result.raw_score == pytest.approx(score, abs=1e-4)
        assert result.cells == tuple(where)
    raw_scores = [result.raw_score for result in answer.results]
    assert raw_scores == sorted(raw_scores, reverse=True)


@pytest.mark.parametrize(
    ("guesses", "taker"),
    [
        # Of two drawings that nobody knows, the one that the word fits better; a line never is what a word means.
        ([[0, 0.1, 0.001], [0.05, 0.02, 0]], 0),
        ([[0, 0.1, 0.001], [0.3, 0.02, 0]], 0),
        ([[0, 0.3, 0.001], [0.05, 0.02, 0]], None),
        ([[0, 0.3, 0.001], [0.05, 0.02, 0.004]], 1),
        ([[0, 0.3, 0.004], [0.05, 0.02, 0.001]], 0),
    ],
)
def test_a_word_goes_to_the_drawing_that_it_may_mean_and_to_no_horizon_unless_it_fits(
    regional: Searcher, monkeypatch: pytest.MonkeyPatch, guesses: list[list[float]], taker: int | None
) -> None:
    words = vocabulary((0, 1, 2), directions=np.eye(3, RET, dtype=np.float32), sketch_directions=np.zeros((3, RET)))
    network = regional_network().vocabulary_replaced(words, (("star",), ("cross",), ("ring",)))
    (star,) = encode_things(regional.matcher, regional.matcher.preprocessing.drawing(on_paper("star", 10)))
    monkeypatch.setattr(type(words), "guess", lambda *_: np.array(guesses))
    things = [star, replace(star, box=(0, 0.5, 1, 0.55))]
    named, further = name_things(matcher_of(network), things, "ring", coloured=True)
    assert [thing.words for thing in named] == [(2,) if number == taker else () for number in range(2)]
    assert [thing.words for thing in further] == [(2,)] * (taker is None)
    if np.max(guesses) < SURE_BESIDE:
        # Of rings, two drawings are as many as a text says, or one is.
        for text, rings in (("two rings", 2), ("three rings", 1)):
            named, _ = name_things(matcher_of(network), [star, star], text, coloured=True)
            assert sum(thing.words == (2,) for thing in named) == rings


@pytest.mark.parametrize(
    ("text", "surely", "named", "beside"),
    [
        ("star", True, "star", []),
        ("ring", True, None, ["ring"]),
        ("red ring", True, None, ["ring"]),
        ("star and ring", True, "star", ["ring"]),
        ("ring", False, "ring", []),
        ("snow", True, None, []),
    ],
)
def test_words_add_things(regional: Searcher, text: str, surely: bool, named: str | None, beside: list[str]) -> None:
    picture = on_paper("star", 10)
    (thing,) = encode_things(regional.matcher, regional.matcher.preprocessing.drawing(picture))
    towards = unit(thing.tokens.guessed_from[0]) * (20 if surely else 0)
    of_sketches = np.stack([towards, -towards / 8, -towards / 8])
    kinds = np.eye(4, RET, dtype=np.float32)
    nobody = 0 if surely else 6
    words = vocabulary((0, 1, 2), directions=kinds, sketch_directions=of_sketches, guess_none=nobody)
    knowing = regional_network().vocabulary_replaced(words, (("star",), ("cross",), ("ring",), ("snow",)))
    searcher = Searcher(regional.index, matcher_of(knowing, variants=1))
    if not surely:
        assert words.guess(thing.tokens).max() < SURE
    (only,), further = name_things(searcher.matcher, [thing], text, coloured=True)
    assert [searcher.matcher.words[number] for number in only.words] == ([named] if named else [])
    assert [searcher.matcher.words[one.words[0]] for one in further] == beside
    assert all(len(one.colours) == text.startswith("red") for one in further)
    guessed, known = (words.guess(tokens)[0] for tokens in (thing.tokens, sketch_of(searcher.matcher, [only])))
    expected = np.isin(np.arange(4), only.words) * guessed.sum() if named else guessed
    assert known == pytest.approx(expected, abs=1e-6)

    answer = searcher.find(picture, text=text, k=PHOTOS)
    assert (answer.method == "things") == bool(beside)
    assert [len(result.cells or ()) for result in answer.results] == [1] * PHOTOS
    by_method = searcher.find(picture, text=text, method="rn", places="yes")
    assert (by_method.method, by_method.placed) == ("rn", True)


def test_one_picture_of_surely_several_things_and_their_pictures_find_the_same(regional: Searcher) -> None:
    apart = regional.search(drawn(regional, on_paper("star", 10), on_paper("cross", 290)), TunedQuery(k=PHOTOS))
    matcher = regional.matcher
    divided = replace(matcher.divide(matcher.preprocessing.drawing(both())), others=())
    surely = regional.search(divided, TunedQuery(k=PHOTOS))
    assert [result.id for result in apart.results] == [result.id for result in surely.results]
    together = regional.find(both())
    known = {"strokes": (), "second_half": ()}
    assert apart.things == tuple(thing.model_copy(update=known) for thing in together.things)
    assert {*range(len(together.ink))} == {stroke for thing in together.things for stroke in thing.strokes}


def test_one_thing_is_searched_for_as_a_whole_and_where_it_stands(regional: Searcher) -> None:
    things = encode_things(regional.matcher, drawn(regional, on_paper("star", 150)))
    known = np.outer([20, 0], unit(things[0].tokens.guessed_from[0]))
    words = vocabulary((0, 1), directions=np.eye(2, RET), sketch_directions=known, guess_none=19.5)
    network = regional_network().vocabulary_replaced(words, (("star",), ("ring",)))
    guessing = Searcher(regional.index, matcher_of(network, variants=1))
    for searcher, sure in ((regional, 1), (guessing, words.guess(things[0].tokens).max())):
        alone, as_one = (searcher.find(on_paper("star", 150), **how) for how in ({}, {"things": "one"}))
        assert alone.results == as_one.results
        assert (len(alone.things), alone.method, alone.placed, alone.region_grid) == (1, "fused", True, 4)
        anywhere = searcher.find(on_paper("star", 150), places="no")
        assert (anywhere.method, anywhere.placed, anywhere.region_grid) == ("fused", False, None)
        directions = searcher.matcher.thing_directions(things)
        matched = match(things, directions, *regional.index.photo_regions(np.arange(PHOTOS)), PLACES)
        fits = matched.diffused(directions)[0]
        evidence = UNFITTED["region"]["placed*sure"] * sure * things[0].placed * (fits - fits.max())
        before = {result.id: result.raw_score for result in anywhere.results}
        scores = np.array([before[photo] for photo in regional.index.ids.tolist()], np.float32)
        expected = dict(zip(regional.index.ids.tolist(), weigh(scores, evidence, "fused").tolist(), strict=True))
        assert {result.id: result.raw_score for result in alone.results} == pytest.approx(expected, abs=1e-4)
    assert regional.find(both(), things="one").method == "fused"
    assert not regional.find(on_paper("star", 150), method="rn").placed, "a method that is named scores alone"
    assert regional.find(both(), method="rn").things == ()


def test_places_and_colours_count_unless_they_are_refused(regional: Searcher) -> None:
    anywhere = regional.find(both(), places="no")
    assert not anywhere.placed
    assert anywhere.results != regional.find(both()).results
    star = on_paper("star", 10)
    assert regional.find(star).placed
    assert regional.find(star, places="no").results != regional.find(star).results
    red = regional.find(on_paper("star", 10, RED))
    assert [thing.colours for thing in red.things] == [("#d02020",)]
    assert red.results != regional.find(star).results
    without = regional.find(on_paper("star", 10, RED), colours="no")
    assert [thing.colours for thing in without.things] == [()]
    assert [result.id for result in without.results] == [result.id for result in regional.find(star).results]


def test_likes_groups_and_filters_go_with_things(regional: Searcher) -> None:
    liked = regional.find(both(), like=[3])
    assert liked.results[0].id == 3
    assert len(liked.things) == 2
    grouped = regional.find(both(), view="groups").groups
    alone = regional.find(both(), view="auto")
    assert (alone.view, alone.groups) == ("photos", None), "a scene is of one photo"
    assert grouped
    assert all(len(group.best.cells or ()) == 2 for group in grouped)
    filtered = regional.find(both(), folder=("größe",)).results
    assert filtered
    assert all(any(path.startswith("größe/") for path in result.paths) for result in filtered)


def test_things_are_guessed_by_what_galleries_and_shards_show(regional: Searcher, folder: Path, tmp_path: Path) -> None:
    two = drawn(regional, on_paper("star", 10), on_paper("cross", 290))
    of_sketches = np.stack([thing.tokens.guessed_from[0] for thing in encode_things(regional.matcher, two)])
    photo = regional.gallery.vectors(np.arange(1))[0]
    region = unpack(regional.index.photo_regions(np.arange(1))[0])[0, 0]
    words = vocabulary(
        (0, 1),
        directions=np.zeros((2, RET)),
        sketch_directions=of_sketches,
        places=np.stack([photo, -photo]),
        region_places=np.stack([region, -region]),
    )
    knowing = matcher_of(regional_network().vocabulary_replaced(words, (("star",), ("cross",))), variants=1)
    whole = Searcher(regional.index, knowing)
    expects = whole.gallery.expects
    assert expects is not None
    assert expects[0] > 2 * expects[1]
    answer = whole.find(both(), k=PHOTOS)
    for thing, seen in zip(encode_things(knowing, two, expects=expects), answer.things, strict=True):
        assert seen.guess is not None
        assert seen.guess.probability == pytest.approx(knowing.guesses(thing.tokens)[0].probability, abs=1e-4)
        assert seen.guesses[0] == seen.guess
        assert [guess.word for guess in seen.guesses] == ["star", "cross"][: len(seen.guesses)]
        assert words.guess(thing.tokens)[0, 0] > words.guess(thing.tokens.expecting(None))[0, 0]
    (alone,) = encode_things(knowing, drawn(whole, on_paper("star", 10)), expects=expects)
    assert alone.tokens.expects is None

    links = links_to(cut(folder, knowing, tmp_path, [photo % 3 for photo in range(PHOTOS)]), knowing)
    asked = TunedQuery.model_validate({"k": PHOTOS})
    assert_same(searcher_of(links, knowing).search(both(), asked), whole.search(both(), asked))


def test_what_an_unsure_division_leaves_out_is_found_too_in_shards_as_in_one_index(
    regional: Searcher, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher, gallery = regional.matcher, regional.gallery
    unsure = Image.fromarray(np.minimum(np.asarray(on_paper("star", 10)), np.asarray(on_paper("cross", UNSURE))))
    links = links_to(cut(folder, matcher, tmp_path, PARTS), matcher)
    drawing = matcher.divide(matcher.preprocessing.drawing(unsure))
    ((probability, other),) = drawing.readings
    assert (len(drawing.things), len(other.things)) == (2, 1)
    answer = regional.find(unsure)
    assert_same(searcher_of(links, matcher).search(unsure, TunedQuery(k=PHOTOS)), answer)
    assert (answer.method, len(answer.things)) == ("things", 2)
    first, second = (search_drawing(gallery, matcher, one, PHOTOS) for one in (replace(drawing, others=()), other))
    odds = [log_odds(r.photos.scores, r.plan.method)[np.argsort(r.photos.ids)] for r in (first, second)]
    mixed = mix(np.stack(odds), np.array([1 - probability, probability]))
    expected = np.sort(first.photos.ids)[np.argsort(-mixed, kind="stable")].tolist()
    assert [result.id for result in answer.results] == expected
    assert expected != first.photos.ids.tolist()
    # Of few candidates of each reading, those of the other one count.
    monkeypatch.setattr(stages, "COMPARED_UNKNOWN", 1)
    few = search_drawing(gallery, matcher, drawing, 1).candidates.ids
    alone = search_drawing(gallery, matcher, replace(drawing, others=()), 1).candidates.ids
    assert set(second.photos.ids[:1]) <= set(few)
    assert len(alone) < len(few)


def test_an_explanation_says_where_each_thing_is_how_well_it_matches_and_in_which_colour(regional: Searcher) -> None:
    pictures = drawn(regional, on_paper("star", 10, RED), on_paper("cross", 290))
    found = {result.id: result for result in regional.search(pictures, TunedQuery(k=PHOTOS)).results}
    answer = explain(regional, pictures, ExplainParams(photo=[5, 12]))
    things = encode_things(regional.matcher, pictures)
    regions, colours = regional.index.photo_regions(regional.gallery.rows_of_ids([5, 12]))
    cosines = unpack(regions) @ regional.matcher.thing_directions(things).T
    assert answer.region_grid == 4
    assert [thing.colours for thing in answer.things] == [("#d02020",), ()]
    for photo, of_photo, in_photo in zip(answer.photos, cosines, colours, strict=True):
        assert tuple(shown.cell for shown in photo.things) == found[photo.id].cells
        red, black = photo.things
        for number, shown in enumerate(photo.things):
            assert shown.cosine == pytest.approx(of_photo[shown.cell, number], abs=2e-3)
        away = np.linalg.norm(in_photo[[*red.cells]] - things[0].colours[0], axis=1)
        for shown, cell in ((red, red.cells[away.argmin()]), (black, black.cell)):
            seen = lab(np.array(ImageColor.getrgb(shown.colour)) / 255)
            assert np.linalg.norm(seen - in_photo[cell]) < 5
        assert red.colour_distance == pytest.approx(away.min(), abs=3)
        assert black.colour_distance is None
    located = locate(regional, pictures, LocateParams(photo=[5, 12]))
    assert (located.things, located.region_grid) == (answer.things, answer.region_grid)
    assert [photo.things for photo in located.photos] == [photo.things for photo in answer.photos]


def test_one_thing_is_located_without_reading_the_photo(regional: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regional.gallery, "open_photo", None)
    one = drawn(regional, on_paper("star", 10))
    vectors = regional.gallery.vectors(regional.gallery.rows_of_ids([7]))
    for sketch, asked in ((one, {}), (None, {"like": 7}), (one, {"kind": "photo"})):
        answer = locate(regional, sketch, LocateParams(photo=[5, 12], **asked))
        (thing,) = answer.things
        assert not thing.colours
        regions, _ = regional.index.photo_regions(regional.gallery.rows_of_ids([5, 12]))
        for photo, of_photo in zip(answer.photos, unpack(regions), strict=True):
            (shown,) = photo.things
            if asked == {"like": 7}:
                assert regional.matcher.engine.projection is not None
                cosines = of_photo @ regional.matcher.engine.projection(vectors)[0]
                assert shown.cell == cosines.argmax()
                least = (cosines.max() + cosines.mean()) / 2
                assert (cosines[[*shown.cells]] >= least - 1e-3).all()
            assert shown.cell in shown.cells


def test_what_words_alone_name_is_located_and_not_explained(regional: Searcher) -> None:
    words = vocabulary(directions=np.eye(2, RET), biases=np.zeros(2))
    knowing = matcher_of(regional_network().vocabulary_replaced(words, (("star",), ("cross",))), variants=1)
    searcher = Searcher(regional.index, knowing)
    answer = locate(searcher, None, LocateParams(photo=[5, 12], text="cross, star"))
    assert [thing.word for thing in answer.things] == ["cross", "star"]
    things = [Thing(Tokens.of_ret(knowing.word_direction([number])[None]), words=(number,)) for number in (1, 0)]
    regions, _ = regional.index.photo_regions(regional.gallery.rows_of_ids([5, 12]))
    cosines = unpack(regions) @ knowing.thing_directions(things).T
    for photo, of_photo in zip(answer.photos, cosines, strict=True):
        assert [shown.cell for shown in photo.things] == of_photo.argmax(axis=0).tolist()
    assert locate(searcher, None, LocateParams(photo=[5], text="giraffe")).things == ()
    with pytest.raises(BadSearch, match="The query is empty: send a sketch, or set like or text"):
        locate(searcher, None, LocateParams(photo=[5]))
    with pytest.raises(BadSearch, match=r"The query is empty: send a sketch, or set like\.$"):
        explain(searcher, None, ExplainParams(photo=[5], text="star"))


@pytest.mark.parametrize(
    ("weights", "each", "whole"),
    [
        ({"always": {"several": -4.0}}, [False, False], False),
        ({"always": {"several": -6.0, "several*known": 12.0}}, [True, False], None),
        ({}, [None, None], None),
    ],
)
def test_the_answer_says_which_of_several_things_no_photo_is_likely_to_show(
    regional: Searcher, monkeypatch: pytest.MonkeyPatch, weights: Weights, each: list[bool | None], whole: bool | None
) -> None:
    words = vocabulary(directions=np.zeros((2, RET)), biases=np.zeros(2))
    knowing = matcher_of(regional_network().vocabulary_replaced(words, (("star",), ("cross",))), variants=1)
    monkeypatch.setattr(knowing, "calibration", replace(knowing.calibration, shown=weights))
    # The detector knows the first thing.
    known = np.eye(2, len(KINDS), dtype=np.float32) * [[1], [0]]
    monkeypatch.setattr(knowing, "thing_kinds", lambda things: known[[int(t.box[0] > 0.3) for t in things]])
    searcher = Searcher(regional.index, knowing)
    query, pictures = TunedQuery(k=PHOTOS), drawn(searcher, on_paper("star", 10), on_paper("cross", 290))
    answer = searcher.search(pictures, query)
    assert [thing.fits for thing in answer.things] == each
    assert answer.sketch_fits is whole
    named = searcher.search(pictures, TunedQuery(k=1, thing_text=("five stars", "many crosses")))
    assert named.word_ignored == ("five", "many")


def test_a_thing_is_called_by_the_word_that_it_was_given_or_by_a_wider_name(regional: Searcher) -> None:
    words = vocabulary(directions=np.eye(2, RET), biases=np.zeros(2))
    knowing = matcher_of(regional_network().vocabulary_replaced(words, (("dog",), ("cat",))), variants=1)
    searcher, paper = Searcher(regional.index, knowing), (on_paper("star", 10), on_paper("cross", 290))
    named = searcher.search(drawn(searcher, *paper), TunedQuery(k=1, thing_text=("Pets", "my cats")))
    assert [thing.word for thing in named.things] == ["pets", "cat"]
    assert [thing.word for thing in locate(searcher, None, LocateParams(photo=[5], text="animal")).things] == ["animal"]


def test_pictures_that_are_no_drawing_are_refused_with_a_sentence(http: httpx.Client) -> None:
    def asked(*pictures: Image.Image, **params: str) -> httpx.Response:
        return http.post("/search", files=[("file", encoded(one)) for one in pictures], params=params)

    star, other = on_paper("star", 10), on_paper("cross", 290)
    assert asked(star, other).status_code == 200
    assert len(asked(star, other).json()["things"]) == 2
    sizes = "the same size; these have 100 x 50 and 400 x 200 pixels"
    assert error(asked(star, other.resize((100, 50))), sizes) == (422, "bad_parameter")
    blank = "Of the 2 pictures of the drawing, number 2: the sketch is blank"
    assert error(asked(star, Image.new("RGB", (400, 200), "white")), blank) == (422, "blank_sketch")
    refusals: dict[str, dict[str, str]] = {
        "with kind=photo, send one": {"kind": "photo"},
        "method=rn compares tokens of a single drawing": {"method": "rn"},
        "things=one leaves a single picture whole": {"things": "one"},
        "searches by a single picture": {"system": "two-stage"},
        "which this index does not keep": {"places": "yes"},
    }
    for sentence, params in refusals.items():
        assert error(asked(star, other, **params), sentence) == (422, "bad_parameter")

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, Tokens, unit, widen
from sketch_search.model.engine.detector import KINDS, NO_KIND, no_boxes
from sketch_search.model.engine.tokens import multiply_regions, pack, unpack
from sketch_search.model.search import Query, gallery_of
from sketch_search.model.search.drawings import search_things
from sketch_search.model.things import (
    ELSEWHERE,
    OTHERWISE,
    THERE,
    Matched,
    Thing,
    fit_boxes,
    match_things,
    places_of_cells,
)

RET = np.zeros((1, 4), np.float32)
NUMBERS = np.random.default_rng(0)


def thing(x: float, y: float, colour: Floats | None = None) -> Thing:
    colours = np.empty((0, 3), np.float32) if colour is None else colour[None]
    return Thing(Tokens.of_ret(RET), (x, y, x, y), colours, np.ones(len(colours), np.float32))


def match(things: list[Thing], directions: Floats, regions: Any, colours: Any, places: float) -> Matched:
    """Matches things with photos without boxes."""
    kinds = np.zeros((len(things), 1), np.float32)
    return match_things(things, directions, regions, colours, kinds, no_boxes(len(regions)), places)


def test_cells_are_counted_row_by_row_from_the_top_left() -> None:
    assert places_of_cells(4).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_a_thing_covers_the_cells_of_its_box_or_the_nearest_one() -> None:
    cells = places_of_cells(16)
    large, small = (Thing(Tokens.of_ret(RET), box) for box in ((0.1, 0.4, 0.7, 0.9), (0.45, 0.05, 0.49, 0.09)))
    assert np.flatnonzero(large.covers(cells)).tolist() == [8, 9, 10, 12, 13, 14]
    assert np.flatnonzero(small.covers(cells)).tolist() == [1]


def test_a_place_says_more_the_smaller_a_thing_is_and_the_further_from_the_middle() -> None:
    boxes = {
        (0.25, 0.25, 0.75, 0.75): 0.0,
        (0.05, 0.0, 1.05, 1.0): 0.0,
        (0.2, 0.25, 0.7, 0.75): 0.25,
        (0.25, 0.35, 0.75, 0.85): 0.5,
        (0.5, 0.5, 1.0, 1.0): 0.5,
        (0.0, 0.7, 0.2, 0.9): 0.8,
    }
    placed = {box: Thing(Tokens.of_ret(RET), box).placed for box in boxes}
    assert placed == pytest.approx(boxes)


def test_a_photo_that_shows_a_thing_all_over_its_box_comes_first_and_one_that_shows_it_elsewhere_too_last() -> None:
    region = pack(unit(NUMBERS.normal(size=(1, 8))))
    regions, direction = pack(np.zeros((3, 64, 8), np.float32)), unpack(region) / (unpack(region) ** 2).sum()
    regions[:, 18] = region
    regions[1, [19, 26, 27]] = regions[2, 60] = region
    colours, drawn = np.zeros((3, 64, 3), np.float32), Thing(Tokens.of_ret(RET), (0.3, 0.3, 0.45, 0.45))
    placed, anywhere = (match([drawn], direction, regions, colours, places).scores[0] for places in (2.0, 0.0))
    assert placed[1] == pytest.approx(placed[0] + THERE * 0.75)
    assert placed[2] == pytest.approx(placed[0] - OTHERWISE / 60 - ELSEWHERE)
    assert anywhere.tolist() == pytest.approx([anywhere[0]] * 3)


def test_packed_regions_are_multiplied_and_chosen_as_unpacked_ones() -> None:
    directions, packed = unit(NUMBERS.normal(size=(2, 8))), pack(unit(NUMBERS.normal(size=(3, 16, 8))))
    np.testing.assert_allclose(multiply_regions(packed, directions), unpack(packed) @ directions.T, atol=1e-6)
    colours = np.zeros((3, 16, 3), np.int8)
    matched = match([thing(0.3, 0.6)], directions[:1], packed, colours, 2.0)
    np.testing.assert_allclose(matched.regions[0], unpack(packed)[range(3), matched.cells[0]], atol=1e-3)


def test_every_float16_is_widened_as_numpy_does() -> None:
    for halves in (every := np.arange(1 << 16, dtype=np.uint16).view(np.float16), every[np.isfinite(every)]):
        assert np.array_equal(widen(halves), halves.astype(np.float32), equal_nan=True)


def boxes_of(*photos: list[tuple[int, float, float, float, float, float]]) -> NDArray[np.uint8]:
    boxes = no_boxes(len(photos))
    for row, of_photo in enumerate(photos):
        for slot, (kind, *numbers) in enumerate(of_photo):
            boxes[row, slot] = [kind, *np.rint(np.array(numbers) * 255)]
    return boxes


def test_a_box_fits_a_thing_by_kind_certainty_and_place() -> None:
    dog, cat = (KINDS.index(kind) for kind in ("dog", "cat"))
    here, there = (0.1, 0.1, 0.5, 0.5), (0.5, 0.5, 0.9, 0.9)
    boxes = boxes_of([(dog, 0.9, *here)], [(dog, 0.9, *there)], [(dog, 0.4, *here)], [(cat, 0.9, *here)], [])
    kinds = np.zeros((1, len(KINDS)), np.float32)
    kinds[0, dog], kinds[0, cat] = 0.7, 0.2
    drawn = Thing(Tokens.of_ret(RET), (0.1, 0.1, 0.5, 0.5))
    fits, chosen, presence, _ = fit_boxes([drawn], kinds, boxes, placed=True)
    assert fits[0, 0] == pytest.approx(np.cbrt(0.7 * 230 / 255), abs=0.02)
    assert fits[0].argsort().tolist()[::-1][:2] == [0, 2]
    assert fits[0, 3] == pytest.approx(np.cbrt(0.2 * 230 / 255), abs=0.02)
    assert fits[0, 1] < 0.1
    assert presence[0, 1] == presence[0, 0]
    assert fits[0, 4] == presence[0, 4] == 0
    assert chosen[0, :, 0].tolist() == [dog, dog, dog, cat, NO_KIND]


def test_a_box_is_of_one_thing_alone_the_one_that_it_fits_best() -> None:
    horse = KINDS.index("horse")
    left, right = (0.05, 0.2, 0.45, 0.8), (0.55, 0.2, 0.95, 0.8)
    boxes = boxes_of([(horse, 0.9, *right)], [(horse, 0.9, *right), (horse, 0.8, *left)], [(horse, 0.9, *left)])
    kinds = np.zeros((2, len(KINDS)), np.float32)
    kinds[:, horse] = 1
    things = [Thing(Tokens.of_ret(RET), box) for box in (left, right)]
    fits, chosen, presence, _ = fit_boxes(things, kinds, boxes, placed=True)
    assert (fits > 0.8).tolist() == [[False, True, True], [True, True, False]]
    assert fits[0, 0] == fits[1, 2] == 0
    assert (chosen[..., 0] == horse).tolist() == (fits > 0).tolist()
    assert chosen[0, 1].tolist() == boxes[1, 1].tolist()
    assert (presence > 0.9).all()


def test_a_coloured_thing_is_found_in_the_box_of_its_colour_whatever_is_around_it() -> None:
    car = KINDS.index("car")
    left, right = (0.0, 0.0, 0.4, 0.6), (0.6, 0.0, 1.0, 0.6)
    boxes = boxes_of([(car, 0.9, *left), (car, 0.8, *right)], [(car, 0.9, *left)])
    colours, red = np.zeros((2, 8, 8, 3), np.int8), (50, 70, 50)
    colours[:, 1:4, 5:7], colours[:, 5:] = red, red
    kinds = np.zeros((1, len(KINDS)), np.float32)
    kinds[0, car] = 1
    pen = Thing(Tokens.of_ret(RET), (0.0, 0.0, 0.4, 0.6), np.array([red], np.float32), np.ones(1, np.float32))
    for drawn, slot in ((pen, 1), (replace(pen, colours=pen.colours[:0], shares=pen.shares[:0]), 0)):
        fits, chosen, presence, _ = fit_boxes([drawn], kinds, boxes, colours.reshape(2, 64, 3), placed=False)
        assert chosen[0, 0].tolist() == boxes[0, slot].tolist()
        assert [column[0, 0] > 2 * column[0, 1] for column in (fits, presence)] == [slot == 1] * 2


def test_a_photo_becomes_a_candidate_by_its_boxes_whatever_its_cluster(default: Matcher) -> None:
    matcher, chance = default, np.random.default_rng(0)
    config, count = matcher.config, 60
    tokens = Tokens(
        unit(chance.normal(size=(count, config.token_count("photo"), config.width)).astype(np.float32)),
        np.tile(np.arange(config.token_count("photo") - 1), (count, 1)),
        regions=unit(chance.normal(size=(count, config.regions, config.region_width)).astype(np.float32)),
        colours=np.zeros((count, config.regions, 3), np.float32),
    )
    dogs = boxes_of(*([(KINDS.index("dog"), 0.9, 0.1, 0.1, 0.5, 0.5)] if row == 7 else [] for row in range(count)))
    dog = matcher.book.of_class("dog")
    assert dog is not None
    thing = Thing(Tokens.of_ret(tokens.ret[:1]), (0.1, 0.1, 0.5, 0.5), words=(dog,))
    for boxes, expected in ((dogs, True), (None, False)):
        gallery = gallery_of(replace(tokens, boxes=boxes), matcher, 6)
        (row,) = np.flatnonzero(gallery.ids == 7)
        others = np.setdiff1d(np.arange(6), gallery.clusters.of(np.array([row])))
        query = Query("things", gallery.clusters.mean, thing.tokens, (thing,), 2.0, clusters=others, count=10)
        assert (7 in gallery.find(query).ids) is expected


@pytest.mark.parametrize(("text", "first"), [("dog", 0), ("two dogs", 1), ("drei Hunde", 2)])
def test_a_number_finds_the_photos_that_show_so_many(default: Matcher, text: str, first: int) -> None:
    config, count = default.config, 3
    alike = np.random.default_rng(0).normal(size=(1, config.token_count("photo"), config.width)).astype(np.float32)
    regions = unit(np.random.default_rng(1).normal(size=(1, config.regions, config.region_width)).astype(np.float32))
    dog, area = KINDS.index("dog"), [(0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9), (0.0, 0.5, 0.4, 0.9)]
    # The more dogs, the less certain each.
    boxes = boxes_of(*([(dog, 0.9 - shown / 5, *corners) for corners in area[: shown + 1]] for shown in range(count)))
    photos = Tokens(
        np.repeat(unit(alike), count, axis=0),
        np.tile(np.arange(config.token_count("photo") - 1), (count, 1)),
        regions=np.repeat(regions, count, axis=0),
        colours=np.zeros((count, config.regions, 3), np.float32),
        boxes=boxes,
    )
    ranking = search_things(gallery_of(photos, default, 1), default, [], count, text=text)
    assert ranking.photos.ids[0] == first


def test_a_word_says_that_a_thing_is_of_the_kinds_that_it_means(default: Matcher) -> None:
    def kinds(word: str) -> set[str]:
        (words,) = default.book.read(word).things
        (probable,) = default.thing_kinds([Thing(Tokens.of_ret(RET), words=words)])
        return {KINDS[number] for number in np.flatnonzero(probable)}

    assert kinds("dog") == {"dog"}
    assert kinds("Labrador retriever") == {"dog"}
    assert kinds("taxi") == {"car"}
    assert kinds("bird") == {"bird"}
    assert not kinds("volcano")

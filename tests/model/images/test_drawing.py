from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from sketch_search.model.engine.parting import SIDE
from sketch_search.model.images import SPECK, Drawing, Preprocessing, Stroke, average_cells, colours_of_cells, lab
from tests.pictures import drawing

OURS = Preprocessing(112)
RED, GREEN = (208, 32, 32), (32, 144, 48)


def paper(colour: str = "white") -> Image.Image:
    return Image.new("RGB", (400, 200), colour)


def with_squares(
    *lefts: int, ink: tuple[int, int, int] = (0, 0, 0), fill: tuple[int, int, int] | None = None
) -> Image.Image:
    """Squares of 80 pixels whose left sides are at these places."""
    picture = paper()
    for left in lefts:
        ImageDraw.Draw(picture).rectangle([left, 60, left + 80, 140], outline=ink, fill=fill, width=4)
    return picture


def in_halves(drawing: Drawing, middle: float = 0.5) -> Drawing:
    """Divides a drawing at a share of the width of its prepared square."""
    ink = drawing.darkness(SIDE) > 50
    return drawing.divide(np.where(ink, np.arange(SIDE) > middle * SIDE, -1).astype(np.int64))


def test_things_of_a_divided_drawing_have_their_boxes_and_are_prepared_as_if_each_stood_alone() -> None:
    both = in_halves(OURS.drawing(with_squares(20, 300)))
    assert [thing.box for thing in both.things] == [
        pytest.approx((left / 400, 0.3, (left + 81) / 400, 0.705)) for left in (20, 300)
    ]
    for thing, left in zip(both.things, (20, 300), strict=True):
        assert np.array_equal(thing.pixels, OURS.pixels(with_squares(left), "sketch"))
    assert np.array_equal(both.whole, OURS.pixels(with_squares(20, 300), "sketch"))


def test_a_drawing_is_one_thing_until_it_is_divided_and_with_all_its_ink_in_one_thing() -> None:
    whole = OURS.drawing(drawing("star", 256, 1))
    for one in (whole, whole.divide(np.zeros((SIDE, SIDE), np.int64))):
        (thing,) = one.things
        assert np.array_equal(thing.pixels, OURS.pixels(drawing("star", 256, 1), "sketch"))
        assert thing.colours == ()


def test_ink_of_no_thing_is_left_out_of_a_drawing_of_one() -> None:
    both = OURS.drawing(with_squares(20, 300))
    labels = np.where(both.darkness(SIDE) > 50, np.where(np.arange(SIDE) > SIDE / 2, SPECK, 0), -1)
    (thing,) = both.divide(labels).things
    assert np.array_equal(thing.pixels, OURS.pixels(with_squares(20), "sketch"))


def test_each_stroke_belongs_to_the_thing_that_most_of_its_ink_is_in() -> None:
    lines = [
        Stroke(((left / 400, 0.5), ((left + 80) / 400, 0.5)), 0.01, word=word)
        for left, word in ((20, ""), (300, "car"))
    ]
    hidden = Stroke(((0.5, 2.0),))
    both = in_halves(replace(OURS.drawing(with_squares(20, 300)), strokes=(*lines, hidden)))
    assert [thing.strokes for thing in both.things] == [(0,), (1,)]
    assert both.words == ("", "car")


def test_a_picture_without_strokes_has_dots_on_the_ink_of_each_thing() -> None:
    both = in_halves(OURS.drawing(with_squares(20, 300)))
    for thing in both.things:
        dots = np.array([both.strokes[number].points[0] for number in thing.strokes])
        assert [*dots.min(axis=0), *dots.max(axis=0)] == pytest.approx(thing.box, abs=0.015)


def test_each_thing_has_the_colours_of_its_own_ink() -> None:
    picture = Image.fromarray(
        np.minimum(*(np.asarray(with_squares(left, ink=ink)) for left, ink in ((20, RED), (300, GREEN))))
    )
    left, right = in_halves(OURS.drawing(picture)).things
    for thing, ink in ((left, RED), (right, GREEN)):
        ((*colour, share),) = thing.colours
        assert colour == pytest.approx(lab(np.array(ink) / 255), abs=2)
        assert share == 1


def test_coloured_strokes_say_a_colour_and_black_ones_or_those_on_coloured_paper_do_not() -> None:
    (red,) = OURS.drawing(with_squares(20, ink=RED)).things
    ((*colour, share),) = red.colours
    assert colour == pytest.approx(lab(np.array(RED) / 255), abs=2)
    assert share == 1
    chalk = Image.new("RGB", (400, 200), (0, 90, 60))
    ImageDraw.Draw(chalk).rectangle([20, 60, 100, 140], outline="white", width=4)
    assert OURS.drawing(chalk).things[0].colours == ()
    assert OURS.drawing(with_squares(20)).things[0].colours == ()


@pytest.mark.parametrize("pen", ["#8a8a8a", "#c2c2c2", "#d9c7a0", "#8cc4e8", "#e58fb0"])
def test_pale_and_grey_pens_of_the_page_have_their_colour_beside_black_and_pencils_have_none(pen: str) -> None:
    picture = with_squares(20)
    ImageDraw.Draw(picture).rectangle([300, 60, 380, 140], outline=pen, width=4)
    black, pale = in_halves(OURS.drawing(picture)).things
    assert black.colours == ()
    ((*colour, share),) = pale.colours
    assert colour == pytest.approx(lab(np.array(ImageColor.getrgb(pen)) / 255), abs=2)
    assert share == 1
    assert OURS.drawing(with_squares(20, ink=(0x88, 0x88, 0x88))).things[0].colours == ()


def test_a_colour_counts_by_its_share_of_all_ink() -> None:
    for width, shares in ((4, []), (8, [0.4]), (20, [0.6])):
        picture = with_squares(20)
        ImageDraw.Draw(picture).line([130, 60, 130, 140], fill=RED, width=width)
        (thing,) = OURS.drawing(picture).things
        assert [round(share, 1) for *_, share in thing.colours] == shares


def test_a_filled_area_says_its_colour_and_leaves_its_outline_to_the_network() -> None:
    (filled,) = OURS.drawing(picture := with_squares(20, fill=GREEN)).things
    ((*colour, _),) = filled.colours
    assert colour == pytest.approx(lab(np.array(GREEN) / 255), abs=2)
    assert filled.pixels[56, 56].tolist() == [255, 255, 255]
    assert (filled.pixels[:, 56] < 128).any()
    assert np.array_equal(filled.pixels, OURS.pixels(picture, "sketch")), "for training, too"


def test_a_drawing_survives_the_way_from_the_process_that_decodes() -> None:
    before = OURS.drawing(with_squares(20, 300, ink=RED))
    after = Drawing.unpack(*before.pack())
    assert after.size == before.size == (400, 200)
    for ours, theirs in zip(in_halves(after).things, in_halves(before).things, strict=True):
        assert (ours.box, ours.colours) == (theirs.box, theirs.colours)
        assert np.array_equal(ours.pixels, theirs.pixels)


def test_pictures_of_things_become_one_drawing_that_looks_like_all_of_them() -> None:
    parts = [OURS.drawing(with_squares(left)) for left in (20, 300)]
    joined = Drawing.joined(parts)
    assert [thing.box for thing in joined.things] == [part.things[0].box for part in parts]
    whole = OURS.pixels(with_squares(20, 300), "sketch")
    # The strokes are where they are in a picture of both, to a pixel or two.
    assert np.abs(joined.whole.astype(int).mean(axis=(0, 2)) - whole.astype(int).mean(axis=(0, 2))).mean() < 12
    other = OURS.drawing(with_squares(20).resize((100, 50)))
    with pytest.raises(ValueError, match="the same size"):
        Drawing.joined([*parts, other])


def test_colours_are_converted_to_cielab() -> None:
    given = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    wanted = [[100, 0, 0], [53.2, 80.1, 67.2], [32.3, 79.2, -107.9], [53.4, 0, 0]]
    assert lab(given) == pytest.approx(np.array(wanted), abs=0.1)


def test_each_cell_of_a_photo_has_its_mean_colour() -> None:
    picture = np.zeros((1, 3, 56, 56), np.float32)
    picture[0, 0, :14, 42:] = 1  # red, in the upper right cell of four in a row
    picture[0, :, 42:, :7] = 1  # white, in half of the lower left cell
    colours = colours_of_cells(average_cells(picture, 4), 4)
    assert colours.shape == (1, 16, 3)
    assert colours[0, 3] == pytest.approx(lab(np.array([1, 0, 0])), abs=0.1)
    assert colours[0, 12] == pytest.approx([50, 0, 0], abs=0.1)
    assert np.abs(np.delete(colours[0], [3, 12], axis=0)).max() < 0.1

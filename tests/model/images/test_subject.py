"""What is beside a drawing on its page does not count: writing, marks far away, and construction lines."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from sketch_search.indexer.samples import draw_sketch
from sketch_search.model.images import Preprocessing, open_image
from sketch_search.model.images.drawing import Drawing, read_drawing
from sketch_search.model.images.ink import on_even_paper
from tests.pictures import SHAPES, drawing, encoded

SIDE = 224
WORDS = "and then we went on, over the hill"


def page(width: int, height: int, place: tuple[int, int], name: str = "bicycle", side: int = 320) -> Image.Image:
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(draw_sketch(name).convert("RGB").resize((side, side), Image.Resampling.LANCZOS), place)
    return sheet


def write(sheet: Image.Image, place: tuple[int, int], text: str, size: int = 24) -> None:
    ImageDraw.Draw(sheet).text(place, text, "#222222", ImageFont.load_default(size))


def dated(sheet: Image.Image) -> None:
    write(sheet, (20, 20), "2024-05-17")


def numbered(sheet: Image.Image) -> None:
    write(sheet, (sheet.width // 2, sheet.height - 40), "17")


def titled(sheet: Image.Image) -> None:
    write(sheet, (30, 30), "My sketches", 40)


def written_below(sheet: Image.Image) -> None:
    for line in range(6):
        write(sheet, (60, 420 + 34 * line), f"{WORDS} {line}")


def written_above(sheet: Image.Image) -> None:
    for line in range(2):
        write(sheet, (60, 30 + 40 * line), WORDS, 28)


def written_beside(sheet: Image.Image) -> None:
    for line, words in enumerate(("we saw it", "at noon on", "the hill by", "the sea and", "went home")):
        write(sheet, (460, 110 + 30 * line), words, 20)


def captioned(sheet: Image.Image) -> None:
    write(sheet, (60, 420), "what I saw today")


def same(one: Drawing, other: Drawing) -> bool:
    return bool(np.abs(one.whole.astype(int) - other.whole).mean() < 1)


@pytest.mark.parametrize("name", ["bicycle", "umbrella", "fish"])
@pytest.mark.parametrize(
    ("add", "size", "place"),
    [
        *((add, (800, 4000), (240, 1900)) for add in (dated, numbered, titled)),
        *((add, (700, 900), (40, 80)) for add in (written_below, written_beside, captioned)),
        (written_above, (700, 900), (100, 300)),
    ],
)
def test_what_is_written_on_the_page_of_a_drawing_does_not_count(
    add: Callable[[Image.Image], None], size: tuple[int, int], place: tuple[int, int], name: str
) -> None:
    plain = read_drawing(page(*size, place, name), SIDE)
    sheet = page(*size, place, name)
    add(sheet)
    drawing, everything = read_drawing(sheet, SIDE), read_drawing(sheet, SIDE, everything=True)
    assert not plain.left_out
    assert same(drawing, plain)
    assert drawing.things[0].box == pytest.approx(plain.things[0].box, abs=0.005)
    assert drawing.left_out
    assert not same(everything, plain)
    assert not everything.left_out


def two_far_apart(sheet: Image.Image) -> None:
    sheet.paste(draw_sketch("cat").convert("RGB"), (450, 560))


def a_bird(sheet: Image.Image) -> None:
    ImageDraw.Draw(sheet).line([(480, 60), (500, 75), (520, 60)], "black", 3)


def a_number_on_it(sheet: Image.Image) -> None:
    write(sheet, (190, 230), "314159265", 18)


def windows(sheet: Image.Image) -> None:
    ImageDraw.Draw(sheet).rectangle((30, 70, 400, 420), outline="black", width=4)
    for number in range(9):
        ImageDraw.Draw(sheet).rectangle((50 + 36 * number, 90, 74 + 36 * number, 116), outline="black", width=3)


def dashes(sheet: Image.Image) -> None:
    for number in range(14):
        ImageDraw.Draw(sheet).line([(30 + 26 * number, 400), (46 + 26 * number, 400)], "black", 4)


@pytest.mark.parametrize("add", [two_far_apart, a_bird, a_number_on_it, windows, dashes])
def test_what_belongs_to_a_drawing_stays(add: Callable[[Image.Image], None]) -> None:
    sheet = page(900, 900, (40, 80), "house")
    add(sheet)
    drawing = read_drawing(sheet, SIDE)
    assert not drawing.left_out
    assert same(drawing, read_drawing(sheet, SIDE, everything=True))


@pytest.mark.parametrize("add", [dated, titled, written_below])
def test_writing_counts_where_there_is_nothing_else(add: Callable[[Image.Image], None]) -> None:
    sheet = Image.new("RGB", (700, 900), "white")
    add(sheet)
    assert same(read_drawing(sheet, SIDE), read_drawing(sheet, SIDE, everything=True))


@pytest.mark.parametrize("colour", ["#96c8ff", "#6f9fe8", "#ff9a9a"])
def test_light_blue_and_red_lines_under_the_ink_are_construction_lines(colour: str) -> None:
    plain = page(600, 600, (140, 140), "fish")
    under = Image.new("RGB", plain.size, "white")
    draw = ImageDraw.Draw(under)
    for radius in (120, 200, 280):
        draw.ellipse((300 - radius, 300 - radius, 300 + radius, 300 + radius), outline=colour, width=3)
    for ends in ((0, 300, 600, 300), (300, 0, 300, 600), (0, 0, 600, 600)):
        draw.line(ends, colour, 3)
    sheet = Image.fromarray(np.minimum(np.asarray(under), np.asarray(plain)))
    drawing = read_drawing(sheet, SIDE)
    assert drawing.things[0].box == pytest.approx(read_drawing(plain, SIDE).things[0].box, abs=0.02)
    assert same(drawing, read_drawing(plain, SIDE))
    assert drawing.left_out
    assert not drawing.things[0].colours


@pytest.mark.parametrize(
    ("colour", "filled"), [("#4a90ff", True), ("#c8322b", False), ("#2f6fd0", False), ("#ffa500", False)]
)
def test_fillings_and_strokes_in_other_colours_stay(colour: str, filled: bool) -> None:
    sheet = page(600, 600, (140, 140), "fish")
    ImageDraw.Draw(sheet).ellipse((180, 60, 300, 130), outline=colour, fill=colour if filled else None, width=6)
    drawing = read_drawing(sheet, SIDE)
    assert same(drawing, read_drawing(sheet, SIDE, everything=True))
    assert drawing.things[0].colours


Pixels = NDArray[np.float64]


def _noisy(pixels: Pixels, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 2.5, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _board(drawn: Image.Image, seed: int) -> Image.Image:
    """A board with a glare, its frame, and a tray with two pens."""
    y, x = np.mgrid[0:600, 0:800]
    glare = 90 * np.exp(-((x - 200 - 100 * seed) ** 2 + (y - 120) ** 2) / 7200)
    ink = np.zeros((600, 800))
    ink[90:470, 200:580] = 1 - np.asarray(drawn.convert("L").resize((380, 380))) / 255
    light = 185 + 30 * (x / 800 - 0.5) - 35 * (y / 600 - 0.5) + glare
    pixels = light[..., None] * (1 - ink[..., None]) + np.array([50, 60, 160]) * ink[..., None]
    pixels[:16], pixels[560:], pixels[566:578, 300:360], pixels[566:578, 380:440] = 120, 150, 30, (180, 30, 30)
    return _noisy(pixels, seed)


def _table(drawn: Image.Image, seed: int) -> Image.Image:
    """A sheet, aslant on a third of a wooden table."""
    y, x = np.mgrid[0:700, 0:900]
    grain = np.sin(x / 37 + y / 300) + np.sin(y / 5) / 2
    table = Image.fromarray((np.array([130, 95, 60]) + 15 * grain[..., None]).astype(np.uint8)).convert("RGBA")
    sheet = Image.new("RGBA", (420, 540), (235, 233, 228))
    sheet.paste(drawn.resize((340, 340)).point(lambda value: int(value * 0.92)), (40, 80))
    table.alpha_composite(sheet.rotate(8 * seed - 14, Image.Resampling.BICUBIC, expand=True), (90 + 40 * seed, 40))
    return _noisy(np.asarray(table.convert("RGB")) * (0.8 + 0.3 * x / 900)[..., None], seed)


def _shadow(drawn: Image.Image, seed: int) -> Image.Image:
    """A sheet that fills the photo, in a shadow."""
    y, x = np.mgrid[0:640, 0:640]
    shadow = 0.5 + 0.1 * np.cos(seed) + 0.45 * (x + y) / 1280
    return _noisy(np.asarray(drawn.resize((640, 640))) * 0.9 * shadow[..., None], seed)


def _likeness(one: Image.Image, other: Image.Image) -> float:
    """Correlates what the network sees of two sketches."""
    seen = [Image.fromarray(Preprocessing(224).pixels(image, "sketch")) for image in (one, other)]
    blurred = [np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(4))).ravel() for image in seen]
    return float(np.corrcoef(blurred)[0, 1])


@pytest.mark.parametrize("shape", SHAPES[:4])
@pytest.mark.parametrize("scene", [_board, _table, _shadow], ids=["board", "table", "shadow"])
def test_a_photo_of_a_drawing_is_read_as_that(scene: Callable[[Image.Image, int], Image.Image], shape: str) -> None:
    drawn = drawing(shape, 512)
    photo = scene(drawn, SHAPES.index(shape))
    assert _likeness(photo, drawn) < 0.7
    assert _likeness(open_image(encoded(photo, "JPEG", quality=90), sketch=True), drawn) > 0.93
    assert open_image(encoded(photo)) == photo


@pytest.mark.parametrize("paper", ["white", "#f4e9c8", "black"])
def test_a_scan_or_a_file_stays_as_it_is(paper: str) -> None:
    for shape in SHAPES[:4]:
        drawn = drawing(shape, 512)
        sheet, ink = (Image.new("RGB", drawn.size, colour) for colour in (paper, "#b03020"))
        tinted = Image.composite(sheet, ink, drawn.convert("L"))
        packed = open_image(encoded(tinted, "JPEG", quality=60))
        for image in (tinted, packed, _noisy(np.asarray(tinted, np.float64), 1)):
            assert on_even_paper(image) is image

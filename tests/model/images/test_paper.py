"""Photos of drawings: on a board, on a sheet on a table, and in a shadow."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sketch_search.model.images import Preprocessing, open_image
from sketch_search.model.images.ink import on_even_paper
from tests.pictures import SHAPES, drawing, encoded

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
def test_a_photo_of_a_drawing_is_read_as_the_drawing(
    scene: Callable[[Image.Image, int], Image.Image], shape: str
) -> None:
    drawn = drawing(shape, 512)
    photo = scene(drawn, SHAPES.index(shape))
    assert _likeness(photo, drawn) < 0.7
    assert _likeness(open_image(encoded(photo, "JPEG", quality=90), sketch=True), drawn) > 0.93
    # As a photo it stays as it is.
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

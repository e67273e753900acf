"""Draws the gallery that the tests of the service search."""

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.pictures import SHAPES, drawing, photo

PHOTOS = 23
CLUSTERS = 5
MAX_UPLOAD = 500_000


def draw_photo(seed: int) -> Image.Image:
    return photo(SHAPES[seed % len(SHAPES)], size=96, seed=seed)


def draw_sketch(seed: int = 0) -> Image.Image:
    return drawing(SHAPES[seed % len(SHAPES)], size=128, seed=seed)


def save_copy(file: Path, seed: int, number: int) -> None:
    """Write a small photo as a PNG file that differs from its other copies in its bytes, not in its pixels."""
    note = PngInfo()
    note.add_text("number", str(number))
    file.parent.mkdir(parents=True, exist_ok=True)
    draw_photo(seed).save(file, pnginfo=note)

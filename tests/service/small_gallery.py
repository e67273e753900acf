"""What is in the gallery that the tests of the service search, and how its pictures are drawn."""

from __future__ import annotations

from PIL import Image

from tests.pictures import SHAPES, drawing, photo

PHOTOS = 23
CLUSTERS = 5
MAX_UPLOAD = 500_000


def draw_photo(seed: int) -> Image.Image:
    """A small photo; every seed another one."""
    return photo(SHAPES[seed % len(SHAPES)], size=96, seed=seed)


def draw_sketch(seed: int = 0) -> Image.Image:
    """A small drawing; every seed another one."""
    return drawing(SHAPES[seed % len(SHAPES)], size=128, seed=seed)

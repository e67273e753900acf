"""Overlays, pixel by pixel."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from service.explain.overlays import BLUE, RED, Tile, attention_overlay, framed, kept_overlay, region_overlay, sheet

GRID, SIDE = 4, 16
WHITE = np.full((GRID * SIDE, GRID * SIDE, 3), 255, np.uint8)


def middle(image: Image.Image, cell: int) -> tuple[int, ...]:
    x, y = cell % GRID * SIDE + SIDE // 2, cell // GRID * SIDE + SIDE // 2
    return tuple(np.asarray(image)[y, x].tolist())


def edge(image: Image.Image, cell: int, side: str) -> tuple[int, ...]:
    left, top = cell % GRID * SIDE, cell // GRID * SIDE
    half, last = SIDE // 2, SIDE - 1
    x, y = {"left": (0, half), "right": (last, half), "top": (half, 0), "bottom": (half, last)}[side]
    return tuple(np.asarray(image)[top + y, left + x].tolist())


def test_attention_is_red_where_it_is_and_outlined_where_it_is_most() -> None:
    attention = torch.zeros(GRID, GRID)
    attention[1, 1], attention[1, 2], attention[3, 3] = 0.5, 0.4, 0.1
    image = attention_overlay(WHITE, attention)
    assert middle(image, 0) == (255, 255, 255)
    strong, weak = middle(image, 5), middle(image, 15)
    assert strong[1] < weak[1] < 255
    # The two cells with nine tenths of it are one region: no line between them.
    assert edge(image, 5, "left") == edge(image, 6, "right") == edge(image, 5, "top") == RED
    assert edge(image, 5, "right") != RED
    assert edge(image, 6, "left") != RED
    assert edge(image, 15, "top") != RED


def test_no_attention_leaves_the_picture_as_it_is() -> None:
    assert np.array_equal(np.asarray(attention_overlay(WHITE, torch.zeros(GRID, GRID))), WHITE)


def test_cells_that_were_dropped_are_grey_and_kept_ones_as_they_are() -> None:
    square = np.random.default_rng(0).integers(0, 256, WHITE.shape, dtype=np.uint8)
    kept = torch.zeros(GRID, GRID, dtype=torch.bool)
    kept[0, 1] = True
    image = np.asarray(kept_overlay(square, kept))
    assert np.array_equal(image[:SIDE, SIDE : 2 * SIDE], square[:SIDE, SIDE : 2 * SIDE])
    rest = np.delete(image.reshape(GRID, SIDE, GRID, SIDE, 3).swapaxes(1, 2).reshape(GRID * GRID, -1), 1, axis=0)
    greys = rest.reshape(-1, 3)
    assert (np.ptp(greys, axis=1) == 0).all()
    line = greys[:, 0] == 255
    assert 0 < line.mean() < 0.5
    assert greys[~line].min() >= 110
    assert greys[~line].max() <= 161


def test_regions_are_in_their_colours() -> None:
    image = region_overlay(WHITE, {RED: [0, 1], BLUE: [10]}, GRID)
    assert edge(image, 0, "top") == RED
    assert edge(image, 0, "right") != RED
    assert edge(image, 10, "bottom") == BLUE
    assert middle(image, 5) == (255, 255, 255)
    red, _, blue = middle(image, 0)
    assert red > blue


def test_what_is_meant_has_the_only_colours() -> None:
    square = np.random.default_rng(0).integers(0, 256, WHITE.shape, dtype=np.uint8)
    attention = torch.zeros(GRID, GRID)
    attention[1, 1] = 1.0
    for image in (attention_overlay(square, attention), region_overlay(square, {RED: [5]}, GRID)):
        cells = np.asarray(image).reshape(GRID, SIDE, GRID, SIDE, 3).swapaxes(1, 2).reshape(GRID * GRID, -1, 3)
        colourful = [bool(np.ptp(cell, axis=1).any()) for cell in cells]
        assert colourful == [cell == 5 for cell in range(GRID * GRID)]


def test_a_caption_that_is_too_long_keeps_its_end() -> None:
    picture = Image.new("RGB", (150, 20))
    ends = ("umbrella 3.jpg", "umbrella 4.jpg")
    whole, cut, other = (
        np.asarray(sheet([[Tile(picture, caption)]]))
        for caption in (ends[0], f"/home/somebody/photos/{ends[0]}", f"/home/somebody/photos/{ends[1]}")
    )
    assert not np.array_equal(cut, other)
    assert not np.array_equal(whole, cut)


def test_a_frame_is_drawn_on_a_copy() -> None:
    image = Image.fromarray(WHITE)
    assert framed(image, RED).getpixel((0, 40)) == RED
    assert framed(image, RED).size == image.size
    assert image.getpixel((0, 40)) == (255, 255, 255)


def test_a_sheet_holds_every_picture_unchanged() -> None:
    colours = [(10, 20, 30), (200, 10, 10), (0, 90, 0)]
    tiles = [Tile(Image.new("RGB", (30, 20), colour), "a caption much too long for it") for colour in colours]
    pixels = np.asarray(sheet([tiles[:2], tiles[2:]]))
    for colour in colours:
        assert int((pixels == colour).all(axis=2).sum()) == 30 * 20

"""Pictures with what the network made of them drawn on top, and sheets of such pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from model.explanation import strongest_cells
from model.images import Pixels

Colour = tuple[int, int, int]

RED: Colour = (214, 39, 40)
ORANGE: Colour = (213, 94, 0)
BLUE: Colour = (0, 114, 178)
PURPLE: Colour = (176, 71, 138)
TEAL: Colour = (0, 120, 90)
#: People who are colour-blind can distinguish them, too.
REGION_COLOURS = (ORANGE, BLUE, PURPLE, TEAL)

# Share of the attention that a contour encloses, as in published attention maps.
CONTOUR = 0.6
# Strong enough to be seen on a white sketch, weak enough to see a photo through.
_OPACITY = 0.65
# Regions have an outline besides, so that what is in them can be seen.
_REGION_OPACITY = 0.3
_WHITE: Colour = (255, 255, 255)
# Of the cells with any attention, those beyond this quantile are all drawn alike.
_STRONG = 0.95
# Of a sheet, in pixels: between pictures and around them, and what the text below a picture takes.
GAP, CAPTION, _FONT = 10, 26, 15
_CUT = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True)
class Tile:
    """A picture of a sheet, with a line of text below it."""

    image: Image.Image
    caption: str = ""


def attention_overlay(square: Pixels, attention: torch.Tensor, share: float = CONTOUR) -> Image.Image:
    """``attention`` (grid, grid) in red over the prepared square, the cells that hold ``share`` of it outlined.

    The square is grey, so that nothing else is red.
    """
    side = len(square) // len(attention)
    values = attention.double().numpy()
    # Otherwise a few cells with most of the attention would leave nothing to be seen of the others.
    strong = np.quantile(values[values > 0], _STRONG) if values.any() else 1.0
    opacity = (np.minimum(values / strong, 1.0) * _OPACITY).repeat(side, 0).repeat(side, 1)[..., None]
    image = Image.fromarray(np.rint(_grey(square) * (1 - opacity) + np.array(RED) * opacity).astype(np.uint8))
    _outline(image, strongest_cells(attention, share), RED)
    return image


def kept_overlay(square: Pixels, kept: torch.Tensor) -> Image.Image:
    """The prepared square with the cells that are not ``kept``, (grid, grid) bool, greyed out behind a white line."""
    side = len(square) // len(kept)
    mask = kept.numpy().repeat(side, 0).repeat(side, 1)[..., None]
    image = Image.fromarray(np.where(mask, square, _grey(square) // 5 + 110).astype(np.uint8))
    _outline(image, ~kept, _WHITE)
    return image


def region_overlay(square: Pixels, regions: Mapping[Colour, Collection[int]], grid: int) -> Image.Image:
    """The prepared square with cells in colours and the rest grey; of a cell in several regions the last one shows."""
    side = len(square) // grid
    values = _grey(square).astype(np.float64)
    for colour, cells in regions.items():
        for cell in cells:
            top, left = cell // grid * side, cell % grid * side
            here = np.s_[top : top + side, left : left + side]
            values[here] = square[here] * (1 - _REGION_OPACITY) + np.array(colour) * _REGION_OPACITY
    image = Image.fromarray(np.rint(values).astype(np.uint8))
    for colour, cells in regions.items():
        mask = torch.zeros(grid * grid, dtype=torch.bool)
        mask[list(cells)] = True
        # The white line within separates the outline from a photo of its colour.
        _outline(image, mask.reshape(grid, grid), _WHITE, width=_line(side) + 1)
        _outline(image, mask.reshape(grid, grid), colour)
    return image


def framed(image: Image.Image, colour: Colour) -> Image.Image:
    """The picture with a frame drawn over its edge."""
    image = image.copy()
    width = max(2, image.width // 40)
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=colour, width=width)
    return image


def sheet(rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Rows of pictures on white, left-aligned in columns as wide as the widest picture."""
    tiles = [tile for row in rows for tile in row]
    width, height = max(t.image.width for t in tiles), max(t.image.height for t in tiles) + CAPTION
    columns = max(len(row) for row in rows)
    size = (GAP + columns * (width + GAP), GAP + len(rows) * (height + GAP))
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            left, top = GAP + across * (width + GAP), GAP + down * (height + GAP)
            canvas.paste(tile.image, (left, top))
            text = _fitted(tile.caption, width, font)
            draw.text((left, top + tile.image.height + 3), text, fill="black", font=font)
    return canvas


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a text that is too long: a path ends with the name of its file."""
    if font.getlength(text) <= width:
        return text
    start = 1
    while start < len(text) and font.getlength(_CUT + text[start:]) > width:
        start += 1
    return _CUT + text[start:]


def _grey(square: Pixels) -> Pixels:
    """The square without colours: (H, W, 3)."""
    return np.asarray(Image.fromarray(square).convert("L").convert("RGB"))


def _line(side: int) -> int:
    """How wide the outline of a cell of ``side`` pixels is."""
    return max(2, side // 6)


def _outline(image: Image.Image, cells: torch.Tensor, colour: Colour, width: int | None = None) -> None:
    """Draw the border of a set of cells, (grid, grid) bool, inside of it, ``width`` pixels wide."""
    grid = len(cells)
    side = image.width // grid
    width = width or _line(side)
    draw = ImageDraw.Draw(image)
    inside = torch.nn.functional.pad(cells, (1, 1, 1, 1))
    for row, column in cells.nonzero().tolist():
        left, top, right, bottom = column * side, row * side, column * side + side - 1, row * side + side - 1
        if not inside[row, column + 1]:
            draw.rectangle((left, top, right, top + width - 1), fill=colour)
        if not inside[row + 2, column + 1]:
            draw.rectangle((left, bottom - width + 1, right, bottom), fill=colour)
        if not inside[row + 1, column]:
            draw.rectangle((left, top, left + width - 1, bottom), fill=colour)
        if not inside[row + 1, column + 2]:
            draw.rectangle((right - width + 1, top, right, bottom), fill=colour)

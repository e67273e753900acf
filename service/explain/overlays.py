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
GREEN: Colour = (24, 150, 60)
BLUE: Colour = (31, 95, 210)
ORANGE: Colour = (240, 130, 0)
REGION_COLOURS = (RED, GREEN, BLUE, ORANGE)

# Share of the attention that a contour encloses, as in published attention maps.
CONTOUR = 0.6
# Strong enough to be seen on a white sketch, weak enough to see a photo through.
_OPACITY = 0.65
# Of the cells with any attention, those beyond this quantile are all drawn alike.
_STRONG = 0.95
_GAP, _CAPTION, _FONT = 8, 20, 13


@dataclass(frozen=True)
class Tile:
    """A picture of a sheet, with a line of text below it."""

    image: Image.Image
    caption: str = ""


def attention_overlay(square: Pixels, attention: torch.Tensor, share: float = CONTOUR) -> Image.Image:
    """``attention`` (grid, grid) in red over the prepared square, the cells that hold ``share`` of it outlined."""
    side = len(square) // len(attention)
    values = attention.double().numpy()
    # Otherwise a few cells with most of the attention would leave nothing to be seen of the others.
    strong = np.quantile(values[values > 0], _STRONG) if values.any() else 1.0
    opacity = (np.minimum(values / strong, 1.0) * _OPACITY).repeat(side, 0).repeat(side, 1)[..., None]
    image = Image.fromarray(np.rint(square * (1 - opacity) + np.array(RED) * opacity).astype(np.uint8))
    _outline(image, strongest_cells(attention, share), RED)
    return image


def kept_overlay(square: Pixels, kept: torch.Tensor) -> Image.Image:
    """The prepared square with the cells that are not ``kept``, (grid, grid) bool, greyed out."""
    side = len(square) // len(kept)
    mask = kept.numpy().repeat(side, 0).repeat(side, 1)[..., None]
    return Image.fromarray(np.where(mask, square, square // 5 + 110).astype(np.uint8))


def region_overlay(square: Pixels, regions: Mapping[Colour, Collection[int]], grid: int) -> Image.Image:
    """The prepared square with cells in colours; of a cell in several regions the last one shows."""
    side = len(square) // grid
    values = square.astype(np.float64)
    for colour, cells in regions.items():
        for cell in cells:
            top, left = cell // grid * side, cell % grid * side
            here = np.s_[top : top + side, left : left + side]
            values[here] = square[here] * (1 - _OPACITY) + np.array(colour) * _OPACITY
    image = Image.fromarray(np.rint(values).astype(np.uint8))
    for colour, cells in regions.items():
        mask = torch.zeros(grid * grid, dtype=torch.bool)
        mask[list(cells)] = True
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
    width, height = max(t.image.width for t in tiles), max(t.image.height for t in tiles) + _CAPTION
    columns = max(len(row) for row in rows)
    size = (_GAP + columns * (width + _GAP), _GAP + len(rows) * (height + _GAP))
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            left, top = _GAP + across * (width + _GAP), _GAP + down * (height + _GAP)
            canvas.paste(tile.image, (left, top))
            text = tile.caption
            while text and draw.textlength(text, font) > width:
                text = text[:-1]
            draw.text((left, top + tile.image.height + 3), text, fill="black", font=font)
    return canvas


def _outline(image: Image.Image, cells: torch.Tensor, colour: Colour) -> None:
    """Draw the border of a set of cells, (grid, grid) bool, inside of it."""
    grid = len(cells)
    side = image.width // grid
    width = max(1, side // 8)
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

"""Finds the sheet or the board in a photo of a drawing, and gives it even light; scans and files stay as they are."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from sketch_search.model.images.ink import components

Corners = NDArray[np.float64]
# Pixels of the longer side at which a photo is looked at, and of a square that is wider than any stroke there.
_SIDE, _STROKE = 160, 11
# Of a file or a scan, at least this share has exactly one colour; of a photo, hardly any pixels are equal.
_EVEN = 0.25
# White that the camera could not tell apart, and the share of the border that has one colour where it shows a table.
_OVEREXPOSED, _NOISY = 0xFFFFFF, 0.5
# Differences of grey levels: between neighbours on one surface, between a sheet and what it lies on, and of the light
# on one sheet.
_STEP, _BRIGHTER, _UNEVEN = 9, 15, 24
# The least share of the photo that a sheet takes, and of its corners' area that is bright.
_LEAST_AREA, _LEAST_FILLED = 0.08, 0.8
# What is cut off at the edges of a sheet, as a share of its side: they are never quite straight.
_RIM = 0.02
# Ink that touches the edges, or lies in this share of the sides beside them, belongs to the frame, unless it is more
# than this share of all ink.
_FRAME, _DRAWN = 0.09, 0.6
# Darker than this is ink, however faint.
_WHITE = 244


def on_even_paper(image: Image.Image) -> Image.Image:
    """Returns the sheet or board that a photo shows, straight and on white; another picture as it is."""
    if min(image.size) < _SIDE or _is_file(image):
        return image
    ground = _ground(image)
    sheet = _sheet(ground)
    if sheet is not None:
        scale = max(image.size) / max(ground.size)
        image = _straighten(image, sheet * scale)
        ground = _ground(image)
    light = np.asarray(ground.convert("L"), np.float64)
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    if sheet is None and np.ptp(np.percentile(border, (5, 95))) < _UNEVEN:
        return image
    return _whiten_frame(_flatten(image, ground))


def _is_file(image: Image.Image) -> bool:
    """Returns True for a file or a scan, of which much has one colour; but not for an overexposed sheet on a table."""
    small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), np.uint32)
    colours = small[..., 0] << 16 | small[..., 1] << 8 | small[..., 2]
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    white = (colours == _OVEREXPOSED).mean() >= _EVEN
    even, framed = (float(np.unique(of, return_counts=True)[1].max() / of.size) for of in (colours, border))
    return even >= _EVEN and not (white and framed < _NOISY)


def _ground(image: Image.Image) -> Image.Image:
    """Makes a small picture of what is below the ink."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    # What is at the edges goes on there: else a frame would be a stroke.
    padded = Image.fromarray(np.pad(np.asarray(small), [(_STROKE, _STROKE), (_STROKE, _STROKE), (0, 0)], "edge"))
    closed = padded.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MaxFilter(_STROKE))
    return ImageOps.crop(closed.filter(ImageFilter.MinFilter(_STROKE)), _STROKE)


def _sheet(ground: Image.Image) -> Corners | None:
    """Finds the corners of the brightest large surface, (4, 2) x and y from the top left on; None if it is all."""
    light = np.asarray(ground.convert("L"), np.float64)
    # Over two cells, because an edge may lie within one.
    wide = np.pad(light, 1, "edge")
    steps = np.abs(wide[2:, 1:-1] - wide[:-2, 1:-1]), np.abs(wide[1:-1, 2:] - wide[1:-1, :-2])
    surfaces = components((np.maximum(*steps) < _STEP).astype(bool), diagonal=False)
    found = [surfaces == number for number in np.unique(surfaces[surfaces >= 0])]
    found = [one for one in found if one.mean() >= _LEAST_AREA]
    if not found:
        return None
    sheet = max(found, key=lambda one: float(light[one].mean()))
    around = light[~sheet]
    corners = _corners(sheet)
    area = _area(corners)
    filled = sheet.sum() / max(area, 1.0)
    whole = sheet.mean() > 1 - _RIM
    if whole or filled < _LEAST_FILLED or light[sheet].mean() - np.median(around) < _BRIGHTER:
        return None
    return corners


def _corners(sheet: NDArray[np.bool_]) -> Corners:
    """Finds the corners of a surface: the outermost points on both diagonals, or on both axes if it lies aslant."""
    y, x = np.nonzero(sheet)
    points = np.stack([x, y], axis=1).astype(np.float64)
    chosen = [
        points[[np.argmin(one), np.argmax(other), np.argmax(one), np.argmin(other)]]
        for one, other in ((x + y, x - y), (y, x))
    ]
    return max(chosen, key=_area)


def _area(corners: Corners) -> float:
    (x, y), (following_x, following_y) = corners.T, np.roll(corners, -1, axis=0).T
    return float(abs((x * following_y - following_x * y).sum()) / 2)


def _straighten(image: Image.Image, corners: Corners) -> Image.Image:
    corners = corners + 2 * _RIM * (corners.mean(axis=0) - corners)
    sides = [float(np.hypot(*(b - a))) for a, b in pairwise([*corners, corners[0]])]
    size = max(1, round(max(sides[0], sides[2]))), max(1, round(max(sides[1], sides[3])))
    left_top, right_top, right_bottom, left_bottom = corners.tolist()
    quad = (*left_top, *left_bottom, *right_bottom, *right_top)
    return image.transform(size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)


def _flatten(image: Image.Image, ground: Image.Image) -> Image.Image:
    light = ground.filter(ImageFilter.GaussianBlur(_STROKE / 2)).resize(image.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) * (255 / np.maximum(np.asarray(light, np.float32), 1))
    # The noise of the paper is white, too.
    return Image.fromarray(np.clip(pixels * 1.06, 0, 255).astype(np.uint8))


def _whiten_frame(image: Image.Image) -> Image.Image:
    """Whitens ink that touches the edges or lies beside them: a frame, pens on a tray, or the shadow of the sheet."""
    small = image.convert("L")
    small.thumbnail((2 * _SIDE, 2 * _SIDE), Image.Resampling.BOX)
    ink = components(np.asarray(small.filter(ImageFilter.MinFilter(3))) < _WHITE, diagonal=False)
    edge = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    rim, (down, across) = np.ones(ink.shape, bool), (round(_FRAME * side) for side in ink.shape)
    rim[down:-down, across:-across] = False
    frame = np.isin(ink, edge[edge >= 0]) | ((ink >= 0) & ~np.isin(ink, ink[~rim]))
    if frame.sum() > _DRAWN * (ink >= 0).sum():
        return image
    frame |= rim & (ink < 0)
    mask = Image.fromarray(frame.astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", image.size, "white"), image, mask)

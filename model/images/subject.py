"""Finds the drawing among what else is on its paper, such as writing; and colours, as CIELAB of D65, two degrees."""

import math
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sketch_search.model.errors import BlankSketch
from sketch_search.model.images.ink import Box, Labels, Pixels, box_of, components, connected, find_ink, keep_greatest

# From linear sRGB to XYZ, each divided by its white.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
_TO_XYZ /= _TO_XYZ.sum(axis=1, keepdims=True)
_CUBED = 6 / 29
# Squares of this many pixels a side are averaged before their colours are converted, which takes long.
_AVERAGED = 7


def lab(colours: NDArray[Any]) -> NDArray[np.float32]:
    """Converts sRGB (..., 3) in 0..1 to CIELAB (..., 3)."""
    rgb = np.clip(np.asarray(colours, np.float32), 0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T
    x, y, z = np.moveaxis(np.where(xyz > _CUBED**3, np.cbrt(xyz), xyz / (3 * _CUBED**2) + 4 / 29), -1, 0)
    return np.asarray(np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1), np.float32)


def hexadecimal(colour: NDArray[Any]) -> str:
    """Writes a colour (3,), as CIELAB, as #rrggbb; one that screens do not have as the nearest of each channel."""
    y = (float(colour[0]) + 16) / 116
    cubes = np.array([y + float(colour[1]) / 500, y, y - float(colour[2]) / 200])
    xyz = np.where(cubes > _CUBED, cubes**3, 3 * _CUBED**2 * (cubes - 4 / 29))
    linear = np.clip(np.linalg.solve(_TO_XYZ.astype(np.float64), xyz), 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * share):02x}" for share in rgb.tolist())


def average_cells(pictures: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Averages pictures (b, 3, H, W) to a few points of each of ``side`` cells, which divides both: (b, 3, h, w)."""
    step = math.gcd(pictures.shape[2] // side, _AVERAGED)
    # Slices are added several times as fast as an axis is reduced.
    rows = reduce(np.add, [pictures[:, :, start::step] for start in range(step)])
    points: NDArray[np.float32] = reduce(np.add, [rows[..., start::step] for start in range(step)])
    return points / np.float32(step * step)


def colours_of_cells(pictures: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Computes the mean colour of ``side`` cells in a row of (b, 3, H, H) in 0..1: (b, side**2, 3), by rows."""
    batch, cell = len(pictures), pictures.shape[2] // side
    colours = lab(pictures.transpose(0, 2, 3, 1)).reshape(batch, side, cell, side, cell, 3)
    return np.asarray(colours.mean(axis=(2, 4)).reshape(batch, side * side, 3))


# Ink is looked at on at most so many cells a side; of more parts it is a texture, and nothing is left out.
_SIDE, _MOST_PARTS = 512, 1500
# Ink of at least this darkness counts.
_INK = 100
# Writing, in heights of its line, of which this is the least in cells.
_LEAST = 4
_GAP = 1.6  # between two parts, at most
_WIDEST = 6.0  # of one part
_LENGTH = 4.0  # of a line, at least
_APART = 0.5  # to all else, at least
_DRAWN = 3.5  # of the side of a drawing, at least
# How many times taller one part may be than most, and the least number of parts of one of several lines, and of a line
# alone.
_TALLER, _PARTS, _PARTS_ALONE = 2.2, 3, 7
# Marks beside a drawing: the most of its area that they take, and how far away they are, in its sides.
_SMALL, _FAR = 0.1, 1.5
# The same of a title, and the most of its width and of the drawing's height that it is high.
_TITLE, _FLAT = 0.4, 0.3
# Construction lines: their least lightness and chroma, how much darker the ink is, and in the channel in which they
# cannot be seen, how dark.
_LIGHT, _CHROMA, _DARKER, _SEEN = 55.0, 12.0, 25.0, 110


def find_subject(darkness: Pixels) -> tuple[NDArray[np.bool_], tuple[Box, ...]] | None:
    """Finds what is no drawing in ink, (h, w), 0 on paper: what to leave out, (h, w), and its boxes; None for nothing.

    Lines of writing are left out unless they are all there is, and small marks that are far from all others.
    """
    if (box := box_of(darkness > 0)) is None:
        return None
    top, bottom, left, right = box
    step = max(1, -(-max(bottom - top, right - left) // _SIDE))
    cells = keep_greatest(darkness[top:bottom, left:right], step) >= _INK
    labels = components(cells)
    boxes = _boxes(labels)
    if not 1 < len(boxes) <= _MOST_PARTS:
        return None
    written = _find_writing(boxes)
    left_out = written.copy()
    left_out[~written] = _find_far(boxes[~written])
    if not left_out.any():
        return None
    number = np.append(left_out, False)[labels]
    # Their soft edges, too.
    grown = np.asarray(Image.fromarray(np.uint8(number)).filter(ImageFilter.MaxFilter(5))) > 0
    number |= grown & (labels < 0)
    marked = np.zeros(darkness.shape, np.bool_)
    large = number.repeat(step, axis=0).repeat(step, axis=1)[: bottom - top, : right - left]
    marked[top:bottom, left:right] = large
    groups = _join_near(boxes[left_out], _GAP * float(np.median(_heights(boxes[left_out]))))
    places = [_around(boxes[left_out][groups == group]) for group in np.unique(groups)]
    scaled = np.array(places) * step + np.array([top, top, left, left])
    return marked, tuple((a, b, c, d) for a, b, c, d in scaled.tolist())


def count_drawn(image: Image.Image) -> int:
    """Counts the pixels of an RGB page that are drawn and not written; 0 if it is blank."""
    try:
        darkness, _ = find_ink(image)
    except BlankSketch:
        return 0
    step = max(1, -(-max(darkness.shape) // _SIDE))
    labels = components(keep_greatest(darkness, step) >= _INK)
    boxes = _boxes(labels)
    drawn = np.ones(len(boxes) + 1, np.bool_)
    if len(boxes) <= _MOST_PARTS and (rows := _lines(boxes)):
        drawn[np.concatenate(rows)] = False
    return int((drawn[labels] & (labels >= 0)).sum())


def _find_writing(boxes: Labels) -> NDArray[np.bool_]:
    """Marks the parts that are lines of writing away from all else; none if nothing else is larger than a line."""
    rows, written = _lines(boxes), np.zeros(len(boxes), np.bool_)
    while rows:
        written[:] = False
        written[np.concatenate(rows)] = True
        height = float(np.median([_heights(boxes[row]).max() for row in rows]))
        if written.all() or max(_sides(boxes[~written])) < _DRAWN * height:
            break
        groups = _join_near(boxes[~written], height)
        others = [_around(boxes[~written][groups == group]) for group in np.unique(groups)]
        apart = [row for row in rows if _gaps(np.array([_around(boxes[row]), *others]))[0, 1:].min() >= _APART * height]
        if len(apart) == len(rows):
            return written
        rows = apart if len(apart) > 1 else [row for row in apart if len(row) >= _PARTS_ALONE]
    return np.zeros(len(boxes), np.bool_)


def _lines(boxes: Labels) -> list[Labels]:
    """Finds the parts that stand in lines, small, even, and beside each other: those of each line."""
    heights, widths = _heights(boxes), boxes[:, 3] - boxes[:, 2]
    rows, used = list[Labels](), np.zeros(len(boxes), np.bool_)
    for first in np.argsort(-heights, kind="stable").tolist():
        tall = float(heights[first])
        if used[first] or tall < _LEAST:
            continue
        level = ~used & (heights <= tall) & (boxes[:, 0] < boxes[first, 1]) & (boxes[:, 1] > boxes[first, 0])
        row = np.flatnonzero(level & (widths <= _WIDEST * tall))
        # From left to right, what hangs together with the first by small gaps.
        row = row[np.argsort(boxes[row, 2], kind="stable")]
        breaks = np.flatnonzero(boxes[row[1:], 2] - np.maximum.accumulate(boxes[row, 3])[:-1] > _GAP * tall) + 1
        row = next((part for part in np.split(row, breaks) if first in part), row[:0])
        even = row[heights[row] * _TALLER >= tall]
        if len(even) < _PARTS or boxes[row, 3].max() - boxes[row, 2].min() < _LENGTH * tall:
            continue
        # With dots and commas.
        top, bottom, start, end = _around(boxes[row])
        inside = (boxes[:, 0] >= top - tall / 2) & (boxes[:, 1] <= bottom + tall / 2)
        inside &= ~used & (boxes[:, 2] >= start - tall) & (boxes[:, 3] <= end + tall)
        used |= inside
        rows.append(np.flatnonzero(inside))
    tallest = [float(_heights(boxes[row]).max()) for row in rows]
    alike = [sum(max(height, other) <= _TALLER * min(height, other) for other in tallest) for height in tallest]
    return [row for row, count in zip(rows, alike, strict=True) if len(row) >= (_PARTS if count > 1 else _PARTS_ALONE)]


def _find_far(boxes: Labels) -> NDArray[np.bool_]:
    """Marks the parts that are small and far from all that is not."""
    if len(boxes) < 2:
        return np.zeros(len(boxes), np.bool_)
    groups = _join_near(boxes, max(_sides(boxes)) / 4)
    around = np.array([_around(boxes[groups == group]) for group in range(int(groups.max()) + 1)])
    height, width = _heights(around), around[:, 3] - around[:, 2]
    areas, longer = height * width, np.maximum(height, width)
    main = int(np.argmax(areas))
    # A title is long, but flat.
    flat = (height <= _FLAT * width) & (height <= _FLAT * height[main]) & (areas <= _TITLE * areas[main])
    small = (areas <= _SMALL * areas[main]) | flat
    gaps = _gaps(around)[:, ~small].min(axis=1)
    return np.asarray((small & (gaps >= _FAR * longer[main]))[groups])


def _join_near(boxes: Labels, gap: float) -> Labels:
    """Numbers the groups of boxes between which there are gaps of at most so much, from 0."""
    pairs = np.stack(np.nonzero(_gaps(boxes) <= gap))
    _, numbers = np.unique(connected(pairs, len(boxes)), return_inverse=True)
    return numbers


def _gaps(boxes: Labels) -> NDArray[np.float64]:
    """Returns the distance of each two boxes, (n, n), 0 if they overlap."""
    tops, bottoms, lefts, rights = boxes.T.astype(np.float64)
    down = np.maximum(tops[:, None] - bottoms, tops - bottoms[:, None]).clip(0)
    across = np.maximum(lefts[:, None] - rights, lefts - rights[:, None]).clip(0)
    return np.asarray(np.hypot(down, across))


def _heights(boxes: Labels) -> Labels:
    return np.asarray(boxes[:, 1] - boxes[:, 0])


def _sides(boxes: Labels) -> tuple[int, int]:
    """Returns height and width of all boxes together."""
    top, bottom, left, right = _around(boxes)
    return bottom - top, right - left


def _around(boxes: Labels) -> Box:
    low, high = boxes.min(axis=0), boxes.max(axis=0)
    return int(low[0]), int(high[1]), int(low[2]), int(high[3])


def _boxes(labels: Labels) -> Labels:
    """Returns top, bottom, left and right of each component, (n, 4); the ends are exclusive."""
    y, x = np.nonzero(labels >= 0)
    number, count = labels[y, x], int(labels.max(initial=-1)) + 1
    boxes = np.empty((count, 4), np.int64)
    for column, at, extreme, start in (
        (0, y, np.minimum, len(labels)),
        (1, y + 1, np.maximum, 0),
        (2, x, np.minimum, labels.shape[1]),
        (3, x + 1, np.maximum, 0),
    ):
        boxes[:, column] = start
        extreme.at(boxes[:, column], number, at)
    return boxes


def construction_channel(seen: Pixels, ink: NDArray[np.bool_], filled: NDArray[np.bool_]) -> int | None:
    """Returns the channel in which light blue or red lines under darker ink cannot be seen; None without such lines.

    seen: (h, w, 3), of which ``ink`` is drawn, and ``filled`` are areas.
    """
    if not ink.any():
        return None
    colours = lab(seen / np.float32(255))
    lightness, a, b = colours[..., 0], colours[..., 1], colours[..., 2]
    blue, red = (b <= -_CHROMA) & (a <= 20), (a >= _CHROMA) & (np.abs(b) <= 0.55 * a)
    for hue, channel in ((blue, 2), (red, 0)):
        lines = ink & hue & (lightness >= _LIGHT)
        dark = ink & (lightness <= np.median(lightness[lines]) - _DARKER) if lines.any() else lines
        outer, inner = box_of(lines), box_of(dark)
        if outer is None or inner is None or (lines & filled).any():
            continue
        reach = 0.05 * max(outer[1] - outer[0], outer[3] - outer[2])
        within = all(s * (side - end) <= reach for s, side, end in zip((-1, 1, -1, 1), inner, outer, strict=True))
        sides = [max(box[1] - box[0], box[3] - box[2]) for box in (inner, outer)]
        seen_there = dark.any() and np.median(seen[..., channel][dark]) < _SEEN
        if seen_there and within and sides[0] >= 0.2 * sides[1] and dark.sum() >= 0.1 * (dark | lines).sum():
            return channel
    return None

"""Finds parts of a photo that are searched like photos of their own: pictures on a page, and views of a panorama."""

from collections.abc import Iterator
from functools import reduce
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

#: A part of a photo in its pixels: left, top, right, bottom. One beyond the right edge goes on at the left one.
Frame: TypeAlias = tuple[int, int, int, int]

# The most parts of a photo.
MAX_PARTS = 12
# Photos wider than this have views, of at least this shape, each of which begins so many heights after the one before.
_WIDE, _VIEW, _STEP, _MOST_VIEWS = 2.5, 1.5, 1.0, 8
# The shape of photos that may go all around, and by how much less the columns at their edges differ than distant ones.
_AROUND, _CONTINUES = (1.98, 2.02), 4.0
# The longer side at which pages are looked at, and how far a channel may be from the ground's.
_SIDE, _EVEN, _MARGIN = 320, 30, 0.95
# The share of what is not ground in a gap at most, in the lines beside a picture's borders, and in pictures at least.
_GAP, _BORDER, _FILLED = 0.015, 0.88, 0.75
# How far these lines are inside, as a share of the side: a scan may be tilted a little.
_INSIDE = 0.045
# Pictures: their least share of the page, alone and together, their least side, and their greatest ratio of sides.
_LEAST, _TOGETHER, _SMALLEST, _RATIO = 0.015, 0.3, 24, 2.6
# The least deviation of the values in a picture: even areas are none.
_LIVELY = 8.0

_Box: TypeAlias = tuple[slice, slice]


def find_parts(image: Image.Image) -> tuple[Frame, ...]:
    """Finds the parts of an RGB photo; most have none."""
    width, height = image.size
    if width > _WIDE * height or (_AROUND[0] <= width / height <= _AROUND[1] and _goes_around(image)):
        return tuple(_views(width, height, around=width <= _WIDE * height))
    return _pictures(image)


def cut(image: Image.Image, frame: Frame) -> Image.Image:
    """Cuts a part out of a photo."""
    left, top, right, bottom = frame
    part = image.crop(frame)
    if right > image.width:
        part.paste(image.crop((0, top, right - image.width, bottom)), (image.width - left, 0))
    return part


def _views(width: int, height: int, *, around: bool) -> Iterator[Frame]:
    """Yields overlapping views from left to right; of a photo that goes around, the last one spans the seam."""
    view = max(_VIEW * height, width / (1 + (_MOST_VIEWS - 1) * _STEP / _VIEW))
    count = int(np.ceil(((width if around else width - view) / (view * _STEP / _VIEW)) - 1e-6)) + (not around)
    last = width * (count - 1) / count if around else width - view
    for left in np.linspace(0, last, count):
        yield round(left), 0, round(left + view), height


def _goes_around(image: Image.Image) -> bool:
    """Returns True if the right edge goes on at the left one."""
    columns = np.asarray(image.resize((64, 64), Image.Resampling.BOX)).astype(np.int16)
    left, right, inner = columns[:, 0], columns[:, -1], columns[:, 8:-8]
    seam = np.abs(left - right).mean()
    beside = (np.abs(left - columns[:, 1]).mean() + np.abs(right - columns[:, -2]).mean()) / 2
    distant = min(np.abs(inner - edge[:, None]).mean() for edge in (left, right))
    # Of blank edges nothing is known.
    blank = np.abs(left - np.median(left, axis=0)).mean() < _LIVELY
    return bool(not blank and seam <= 1.5 * beside + 1 and distant >= _CONTINUES * seam)


def _pictures(image: Image.Image) -> tuple[Frame, ...]:
    """Finds two or more pictures on even ground that together cover much of a page; nothing in other photos."""
    scale = max(1, round(max(image.size) / _SIDE))
    small = image.reduce(scale)
    pixels, rim = np.asarray(small), max(1, min(small.size) // 60)
    sides = pixels[:rim], pixels[-rim:], pixels[:, :rim], pixels[:, -rim:]
    margin = np.concatenate([side.reshape(-1, 3) for side in sides]).astype(np.int16)
    paper = np.median(margin, axis=0)
    uneven = float(np.quantile(np.abs(margin - paper).max(axis=1), _MARGIN))
    for ground, even in ((paper, min(uneven + 4, _EVEN)), (np.full(3, 255), 8), (np.zeros(3), 8)):
        ground_alone = Image.new("RGB", small.size, tuple(map(int, ground)))
        channels = ImageChops.difference(small, ground_alone).split()
        content = np.asarray(reduce(ImageChops.lighter, channels)) > even
        page = slice(0, content.shape[0]), slice(0, content.shape[1])
        boxes = [box for box in _divided(content, page) if content[box].size >= _LEAST * content.size]
        pictures = [box for box in boxes if len(boxes) > 1 and _is_picture(content[box], pixels[box])]
        if len(pictures) > 1:
            # Beside several whose borders are seen, what is as large and blends with the page somewhere is one, too.
            least = min(content[box].size for box in pictures)
            pictures = [box for box in boxes if box in pictures or content[box].size >= least]
        if 2 <= len(pictures) <= MAX_PARTS and sum(content[box].size for box in pictures) >= _TOGETHER * content.size:
            # Without what a JPEG mixes into the borders of a picture.
            return tuple(
                (scale * (x.start + 1), scale * (y.start + 1), scale * (x.stop - 1), scale * (y.stop - 1))
                for y, x in pictures
            )
    return ()


def _divided(content: NDArray[np.bool_], box: _Box, whole: tuple[bool, ...] = ()) -> Iterator[_Box]:
    """Divides a page at its straight gaps, down and across by turns, until there are none: boxes without margins."""
    axis = len(whole) % 2
    filled = np.pad(content[box].mean(axis=1 - axis) > _GAP, 1)
    starts, stops = np.flatnonzero(np.diff(filled)).reshape(-1, 2).T + box[axis].start
    undivided = len(starts) == 1 and stops[0] - starts[0] == box[axis].stop - box[axis].start
    if undivided and whole[-1:] == (True,):
        yield box
        return
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        run = slice(start, stop)
        yield from _divided(content, (run, box[1]) if axis == 0 else (box[0], run), (*whole, undivided))


def _is_picture(content: NDArray[np.bool_], pixels: NDArray[np.uint8]) -> bool:
    """Returns True if what is in a box fills it up to straight borders, and is no even area."""
    height, width = content.shape
    if not 1 / _RATIO <= width / height <= _RATIO or min(height, width) < _SMALLEST:
        return False
    y, x = (max(1, round(_INSIDE * side)) for side in (height, width))
    lines = content[y, x:-x], content[-1 - y, x:-x], content[y:-y, x], content[y:-y, -1 - x]
    edged = min(line.mean() for line in lines) >= _BORDER and content.mean() >= _FILLED
    return bool(edged and pixels[y:-y, x:-x].std(axis=(0, 1)).max() >= _LIVELY)

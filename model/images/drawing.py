"""Finds the things of a drawing: which ink belongs together, where it stands, and in which colours it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketch_search.model.images import ink
from sketch_search.model.images.colours import lab
from sketch_search.model.images.ink import Box, Pixels

Mask: TypeAlias = NDArray[np.bool_]
#: The most things of a drawing.
MAX_THINGS = 8
# Ink is looked at on a paper of at most this many pixels a side.
_SEEN = 128
# Ink that is nearer than this share of the paper's side belongs together.
_GAP = 0.06
# Of two boxes that share at least this much of the smaller one, both belong to one thing.
_SHARED = 0.3
# Ink smaller than this share of the largest thing's side is a speck, and belongs to the nearest thing.
_SPECK = 0.35
# Ink of less chroma is black or grey, and has no colour.
_LEAST_CHROMA = 20.0
# An area that contains a square of this share of the paper's side is filled, not a stroke.
_FILLED = 0.04
# Colours that are nearer than this count as one, and a colour with a smaller share of the coloured ink is ignored.
_SAME_COLOUR, _LEAST_SHARE, _MOST_COLOURS = 25.0, 0.1, 3


@dataclass(frozen=True)
class DrawnThing:
    """One thing of a drawing, prepared for the network.

    Attributes:
        pixels: (H, W, 3) uint8. box: left, top, right and bottom of its ink, as shares of the paper's sides.
        colours: L, a and b of each colour it was drawn in, as CIELAB, and the colour's share of the coloured ink, most
            first; at most three, none for black ink.
    """

    pixels: Pixels
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    colours: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A drawing, prepared for the network.

    Attributes:
        size: width and height of the paper in pixels. whole: (H, W, 3) uint8, all of it as one thing.
        things: at least one; one with the pixels of ``whole`` if there is one.
    """

    size: tuple[int, int]
    whole: Pixels
    things: tuple[DrawnThing, ...]

    @staticmethod
    def of(pixels: Pixels) -> Drawing:
        """Makes the drawing of a prepared picture, (H, W, 3) uint8, that is one thing."""
        return Drawing((1, 1), pixels, (DrawnThing(pixels),))

    @staticmethod
    def joined(parts: Sequence[Drawing]) -> Drawing:
        """Joins pictures on one paper: the things of all. Raises ValueError if they are not of one size."""
        if len({part.size for part in parts}) > 1:
            raise ValueError("pictures of one drawing must have the same size")
        things = tuple(thing for part in parts for thing in part.things)
        return Drawing(parts[0].size, _together(things, parts[0].size), things)

    def stacked(self) -> tuple[Pixels, dict[str, Any]]:
        """Returns all pixels, (n * H, W, 3), and what ``of_stacked`` needs beside them, as JSON can hold it."""
        squares = [self.whole, *(thing.pixels for thing in self.things if len(self.things) > 1)]
        return np.concatenate(squares), {"size": self.size, "things": [[one.box, one.colours] for one in self.things]}

    @staticmethod
    def of_stacked(pixels: Pixels, notes: dict[str, Any]) -> Drawing:
        """Undoes ``stacked``. Raises ValueError, TypeError or KeyError for what it did not make."""
        side = pixels.shape[1]
        whole, *others = (pixels[start : start + side] for start in range(0, len(pixels), side))
        width, height = map(int, notes["size"])
        things = []
        for square, (box, colours) in zip(others or [whole], notes["things"], strict=True):
            left, top, right, bottom = map(float, box)
            shown = tuple((float(one), float(a), float(b), float(share)) for one, a, b, share in colours)
            things.append(DrawnThing(square, (left, top, right, bottom), shown))
        return Drawing((width, height), whole, tuple(things))


def _together(things: Sequence[DrawnThing], size: tuple[int, int]) -> Pixels:
    """Draws prepared things on one prepared square, where they stand, as far as their pixels allow."""
    side = len(things[0].pixels)
    boxes = np.array([thing.box for thing in things]) * (*size, *size)
    first, last = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    square, middle = np.full((side, side, 3), 255, np.uint8), (first + last) / 2
    for thing, box in zip(things, boxes, strict=True):
        scale = max(box[2:] - box[:2]) / max(last - first)
        own = max(1, round(side * scale))
        x, y = np.rint(side / 2 + ((box[:2] + box[2:]) / 2 - middle) * side / max(last - first) - own / 2).astype(int)
        small = np.asarray(Image.fromarray(thing.pixels).resize((own, own), Image.Resampling.BICUBIC))
        there = square[max(0, y) : y + own, max(0, x) : x + own]
        there[:] = np.minimum(there, small[max(0, -y) :, max(0, -x) :][: there.shape[0], : there.shape[1]])
    return square


@dataclass(frozen=True)
class Ink:
    """The ink of one thing.

    Attributes:
        darkness: (h, w) uint8 of its box, 0 where there is none of it. box: its place on the paper, in pixels.
        colours: as of a ``DrawnThing``.
    """

    darkness: Pixels
    box: Box
    colours: tuple[tuple[float, float, float, float], ...] = ()


def find_things(image: Image.Image, *, split: bool = True) -> tuple[Ink, tuple[Ink, ...]]:
    """Finds the ink of an RGB drawing, and that of each of its things, from left to right. Raises BlankSketch.

    There is one thing unless the drawing is to be split, and its ink lies clearly apart.
    """
    darkness, box = ink.find_ink(image)
    step = max(1, -(-max(image.size) // _SEEN))
    seen = np.asarray(image)[::step, ::step]
    coloured, filled = _coloured(seen, darkness[::step, ::step], ink.paper_colour(image))
    if filled.any():
        darkness = _outlined(darkness, filled)
    whole = Ink(_cut(darkness, box), box, _colours(seen, coloured))
    groups = _groups(ink.keep_greatest(darkness, step) > 0) if split else []
    if not 1 < len(groups) <= MAX_THINGS:
        return whole, (whole,)
    found = []
    for group in groups:
        own = np.repeat(np.repeat(group, step, axis=0), step, axis=1)[: darkness.shape[0], : darkness.shape[1]]
        of_group = np.where(own, darkness, np.uint8(0))
        if (its_box := ink.box_of(of_group > 0)) is not None:
            found.append(Ink(_cut(of_group, its_box), its_box, _colours(seen, coloured & group)))
    return whole, tuple(sorted(found, key=lambda one: (one.box[2], one.box[0])))


def _cut(darkness: Pixels, box: Box) -> Pixels:
    top, bottom, left, right = box
    return darkness[top:bottom, left:right]


# Parts.


def _groups(drawn: Mask) -> list[Mask]:
    """Divides ink (h, w) into parts that lie clearly apart; one part if there is one thing."""
    near = _widened(drawn, max(1, round(_GAP * max(drawn.shape) / 2)))
    labels = np.where(drawn, _components(near), 0)
    if labels.max() == 1:
        return [drawn]
    groups = list[Group]()
    for number in range(1, labels.max() + 1):
        if (box := ink.box_of(labels == number)) is not None:
            groups.append(({number}, box))
    while pair := _overlapping(groups):
        groups = _merged(groups, *pair)
    while len(groups) > 1:
        sides = [_side(box) for _, box in groups]
        least = int(np.argmin(sides))
        if sides[least] >= _SPECK * max(sides):
            break
        others = [number for number in range(len(groups)) if number != least]
        nearest = min(others, key=lambda number: _distance(groups[least][1], groups[number][1]))
        groups = _merged(groups, least, nearest)
    return [np.isin(labels, list(numbers)) for numbers, _ in groups]


# Numbers of components, and the box of their ink.
Group: TypeAlias = tuple[set[int], Box]


def _overlapping(groups: Sequence[Group]) -> tuple[int, int] | None:
    """Finds two groups whose boxes share at least _SHARED of the smaller one."""
    for one, other in combinations(range(len(groups)), 2):
        (_, here), (_, there) = groups[one], groups[other]
        height = min(here[1], there[1]) - max(here[0], there[0])
        width = min(here[3], there[3]) - max(here[2], there[2])
        areas = [(bottom - top) * (right - left) for top, bottom, left, right in (here, there)]
        if height > 0 and width > 0 and height * width >= _SHARED * min(areas):
            return one, other
    return None


def _merged(groups: Sequence[Group], one: int, other: int) -> list[Group]:
    both = np.array([groups[one][1], groups[other][1]])
    (top, _, left, _), (_, bottom, _, right) = both.min(axis=0).tolist(), both.max(axis=0).tolist()
    rest = [group for number, group in enumerate(groups) if number not in (one, other)]
    return [*rest, (groups[one][0] | groups[other][0], (top, bottom, left, right))]


def _side(box: Box) -> int:
    top, bottom, left, right = box
    return max(bottom - top, right - left)


def _distance(one: Box, other: Box) -> float:
    down = max(0, one[0] - other[1], other[0] - one[1])
    across = max(0, one[2] - other[3], other[2] - one[3])
    return float(np.hypot(down, across))


def _components(marked: Mask) -> NDArray[np.int64]:
    """Numbers what is connected, (h, w), from 1; 0 is not marked. Neighbours touch by a side."""
    parents = [0]

    def root(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    labels, before = np.zeros(marked.shape, np.int64), list[tuple[int, int, int]]()
    for y, row in enumerate(marked):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.view(np.int8), [0]])))
        runs = list[tuple[int, int, int]]()
        for start, end in edges.reshape(-1, 2).tolist():
            touching = {root(number) for left, right, number in before if left < end and start < right}
            number = min(touching, default=len(parents))
            if not touching:
                parents.append(number)
            for other in touching:
                parents[other] = number
            labels[y, start:end] = number
            runs.append((start, end, number))
        before = runs
    roots = np.array([root(number) for number in range(len(parents))])
    numbers: NDArray[np.int64] = np.searchsorted(np.unique(roots), roots)[labels]
    return numbers


def _widened(marked: Mask, reach: int) -> Mask:
    """Marks what lies within ``reach`` pixels of what is marked, along both axes."""
    for _ in range(2):
        sums = np.cumsum(np.pad(marked, ((reach + 1, reach), (0, 0))), axis=0, dtype=np.int32)
        marked = (sums[2 * reach + 1 :] > sums[: -2 * reach - 1]).T
    return marked


def _narrowed(marked: Mask, reach: int) -> Mask:
    """Marks what has nothing within ``reach`` pixels that is not marked, along both axes."""
    return ~_widened(~marked, reach)


# Colours.


def _coloured(seen: Pixels, darkness: Pixels, paper: tuple[int, int, int]) -> tuple[Mask, Mask]:
    """Finds the coloured ink, and the areas that are filled with it, (h, w) each.

    Strokes are coloured if they are neither black nor grey nor white. So are filled areas, unless the paper is white.
    """
    strong = darkness >= 128
    coloured = strong.copy()
    coloured[strong] = _chroma(seen[strong]) >= _LEAST_CHROMA
    tinted = bool(_chroma(np.array(paper, np.uint8)) >= _LEAST_CHROMA)
    if not coloured.any() and not tinted:
        return coloured, np.zeros_like(coloured)
    reach = max(1, round(_FILLED * max(seen.shape[:2]) / 2))
    filled = _widened(_narrowed(strong if tinted else coloured, reach), reach)
    if tinted:
        # A pen on coloured paper has no colour of its own: to the person drawing, it is black or white.
        coloured = strong & filled
    return coloured, filled


def _chroma(colours: Pixels) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.linalg.norm(lab(colours / np.float32(255))[..., 1:], axis=-1)
    return found


def _outlined(darkness: Pixels, filled: Mask) -> Pixels:
    """Leaves the outlines of filled areas: the network knows line drawings."""
    inner = Image.fromarray(_narrowed(filled, 1)).resize(darkness.shape[::-1], Image.Resampling.NEAREST)
    inside = np.asarray(inner)
    return np.where(inside, np.uint8(0), darkness)


def _colours(seen: Pixels, coloured: Mask) -> tuple[tuple[float, float, float, float], ...]:
    """Finds up to three colours of ink, most first, and their shares."""
    left = lab(seen[coloured] / np.float32(255))
    total, found = len(left), list[tuple[float, float, float, float]]()
    while len(found) < _MOST_COLOURS and len(left):
        # The colour of most ink is the middle of the fullest box of a coarse grid.
        boxes, counts = np.unique(np.floor(left / _SAME_COLOUR), axis=0, return_counts=True)
        middle = np.median(left[(np.floor(left / _SAME_COLOUR) == boxes[counts.argmax()]).all(axis=1)], axis=0)
        near = np.linalg.norm(left - middle, axis=1) < _SAME_COLOUR
        if near.sum() < _LEAST_SHARE * total:
            break
        found.append((*np.median(left[near], axis=0).tolist(), float(near.sum())))
        left = left[~near]
    whole = sum(share for *_, share in found)
    return tuple((lightness, a, b, share / whole) for lightness, a, b, share in found)

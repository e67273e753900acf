"""Prepares drawings: their ink and colours, and each of their things once it is known which ink belongs together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, TypeAlias

import numpy as np
from annotated_types import Interval, Len
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from sketch_search.model.images import ink, subject
from sketch_search.model.images.ink import Box, Pixels
from sketch_search.model.images.subject import lab
from sketch_search.model.limits import MAX_NUMBERS, pause
from sketch_search.model.words import LONGEST

Mask: TypeAlias = NDArray[np.bool_]
Labels: TypeAlias = NDArray[np.int64]
#: The most things of a drawing, and the most strokes that may be told apart.
MAX_THINGS, MAX_STROKES = 8, 2000
# A share of the paper's side: pens also leave the paper.
_Place = Annotated[float, Interval(ge=-1, le=2)]
# Colours are looked at on a paper of at most this many pixels a side, and ink is kept with as many as this.
_SEEN, _KEPT = 128, 1024
#: The number of ink that is of no thing.
SPECK = -2
#: The most pixels that a decoded drawing has beside its prepared square.
MOST_INK = _KEPT**2
# Ink of less chroma is black or grey, and has no colour.
_LEAST_CHROMA = 20.0
# Ink of less lightness is black, if it has no colour.
_DARK = 20.0
# Of ink that is not as dark as this, only what is about as dark as the ink around it has a colour: not the soft edges.
_INKED, _PALE, _SOFT = 128, 48, 0.9
# The greys of the page's pens, and around white strokes: a colour if so much of all grey ink on white is exactly that.
_GREYS, _FLAT = (0x8A, 0xB0, 0xC2), 0.15
# An area that contains a square of this share of the paper's side is filled, not a stroke.
_FILLED = 0.04
# Colours that are nearer than this count as one, and a colour with a smaller share of the ink is ignored.
_SAME_COLOUR, _LEAST_SHARE, _MOST_COLOURS = 25.0, 0.1, 3
# The side, in pixels of the square that is divided, of the cells whose ink has a dot.
_DOTTED = 7
# Of more points of strokes than this, only some are drawn on the square: a wide line takes 26 µs for each.
_MOST_DRAWN = 10_000
# A drawing may have more colours than each of its things.
_PALETTE = 8


@dataclass(frozen=True)
class Stroke:
    """A stroke of a drawing.

    points: at least one, x and y as shares of the paper's sides. width: as a share of its width. filled: whether it is
    an area that the points go round. thing: strokes with the same number are one thing, and those with different ones
    several, because a person said so. word: what a person says that its thing is, or "".
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    points: Annotated[tuple[tuple[_Place, _Place], ...], Len(1)]
    width: Annotated[float, Interval(ge=0, le=1)] = 0.01
    filled: bool = False
    thing: Annotated[int, Interval(ge=0, lt=MAX_NUMBERS)] | None = None
    word: Annotated[str, Len(0, LONGEST)] = ""


@dataclass(frozen=True)
class DrawnThing:
    """One thing of a drawing, prepared for the network.

    pixels: (H, W, 3) uint8. box: left, top, right and bottom of its ink, as shares of the paper's sides. colours: L, a
    and b of at most three colours, as CIELAB, and their shares of the ink, most first; none for black ink.
    strokes: their numbers, if known. second_half: those that are a thing of their own if it is split.
    """

    pixels: Pixels
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    colours: tuple[tuple[float, float, float, float], ...] = ()
    strokes: tuple[int, ...] = ()
    second_half: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """All ink of a drawing.

    ink: (h, w, 2) uint8 of its box: its darkness, 0 on paper, and from 1 the number of its colour in the palette, the
    last one black. corner: where it begins on the paper, x and y in pixels. step: pixels of the paper for each of
    these. size: width and height of the paper. palette: the colours as CIELAB.
    """

    ink: Pixels
    corner: tuple[int, int]
    step: int
    size: tuple[int, int]
    palette: tuple[tuple[float, float, float], ...]

    def part(self, mask: Mask, side: int) -> DrawnThing | None:
        """Prepares the marked ink, (h, w), as a thing; None without any."""
        darkness = np.where(mask, self.ink[..., 0], np.uint8(0))
        if (box := ink.box_of(darkness > 0)) is None:
            return None
        top, bottom, left, right = box
        return DrawnThing(ink.centre(darkness[top:bottom, left:right], side), self.place(box), self._colours(mask))

    def place(self, box: Box) -> tuple[float, float, float, float]:
        """Returns where a part of it is, as shares of the paper's sides."""
        top, bottom, left, right = (self.step * end for end in box)
        (x, y), (width, height) = self.corner, self.size
        return (x + left) / width, (y + top) / height, min(1, (x + right) / width), min(1, (y + bottom) / height)

    def _colours(self, mask: Mask) -> tuple[tuple[float, float, float, float], ...]:
        _, *coloured, black = np.bincount(self.ink[..., 1][mask], minlength=2 + len(self.palette))
        counts = np.array(coloured)
        best = np.argsort(-counts, kind="stable")[:_MOST_COLOURS]
        best = best[counts[best] > _LEAST_SHARE * (counts.sum() + black)]
        total = counts[best].sum() + black
        return tuple((*self.palette[number], float(counts[number] / total)) for number in best.tolist())


@dataclass(frozen=True)
class Drawing:
    """A drawing, prepared for the network.

    size: width and height of the paper in pixels. whole: (H, W, 3) uint8, all of it as one thing.
    things: at least one; one with the pixels of ``whole`` if there is one.
    sheet: its ink, if it may be divided. strokes: those that made the ink, in order, if that is known.
    others: its things by other divisions of the ink, each with its probability.
    left_out: where other ink is, which is no drawing: left, top, right and bottom, as shares of the paper's sides.
    page: its number in a file of several, from 1; else 0. prepare_ms: how long a service prepared it.
    """

    size: tuple[int, int]
    whole: Pixels
    things: tuple[DrawnThing, ...]
    sheet: Sheet | None = None
    strokes: tuple[Stroke, ...] = ()
    others: tuple[tuple[float, tuple[DrawnThing, ...]], ...] = ()
    left_out: tuple[tuple[float, float, float, float], ...] = ()
    page: int = 0
    prepare_ms: float = 0.0

    @staticmethod
    def of(pixels: Pixels, size: tuple[int, int] = (1, 1)) -> Drawing:
        """Makes the drawing of a prepared picture, (H, W, 3) uint8, that is one thing."""
        return Drawing(size, pixels, (DrawnThing(pixels),))

    @property
    def readings(self) -> list[tuple[float, Drawing]]:
        """Returns the drawing by its other divisions, each with its probability."""
        return [(probability, replace(self, things=things, others=())) for probability, things in self.others]

    @property
    def words(self) -> tuple[str, ...]:
        """Returns the word that a person gave to each thing, which one of its strokes has; "" if there is none."""
        words = ([self.strokes[stroke].word.strip() for stroke in thing.strokes] for thing in self.things)
        return tuple(next(filter(None, of_thing), "") for of_thing in words)

    @staticmethod
    def joined(parts: Sequence[Drawing]) -> Drawing:
        """Joins pictures on one paper: the things of all. Raises ValueError if they are not of one size."""
        if len({part.size for part in parts}) > 1:
            raise ValueError("pictures of one drawing must have the same size")
        things = tuple(thing for part in parts for thing in part.things)
        return Drawing(parts[0].size, _together(things, parts[0].size), things)

    def darkness(self, side: int) -> Pixels:
        """Returns the darkness of the prepared square's ink at another size, (side, side), 0 on paper."""
        small = Image.fromarray(self.whole[..., 0]).resize((side, side), Image.Resampling.BILINEAR)
        return 255 - np.asarray(small)

    def divide(
        self, labels: Labels, halves: Labels | None = None, other: tuple[float, Labels] | None = None
    ) -> Drawing:
        """Divides the drawing into the things numbered on its prepared square, (n, n), from left to right.

        labels: -1 on paper, SPECK for ink of no thing. Ink that is not numbered belongs to the nearest thing within a
        few pixels, or else to none. halves: 0 and 1, the half of each thing. other: another division, and its
        probability. If no strokes are known, dots on the ink take their place.
        """
        if self.sheet is None:
            return self
        second = labels if halves is None else halves
        if self.strokes:
            strokes, drawn = self.strokes, self.stroke_map(len(labels))
            owners, seconds = (self._of_strokes(numbers, drawn) for numbers in (labels, second))
        else:
            strokes, owners, seconds = self._dots(labels, second)
        things = list[DrawnThing]()
        for number, part in enumerate(self._parts(labels)):
            halves_of = (owners == number, (owners == number) & (seconds == 1))
            whole, half = (tuple(np.flatnonzero(marked).tolist()) for marked in halves_of)
            things += [] if part is None else [replace(part, strokes=whole, second_half=half)]
        others = () if other is None else ((other[0], _in_order(filter(None, self._parts(other[1])))),)
        return replace(self, strokes=strokes, things=_in_order(things), others=others)

    def _parts(self, labels: Labels) -> list[DrawnThing | None]:
        """Cuts the things out of the sheet, None for one without ink."""
        assert self.sheet is not None
        if labels.max(initial=-1) <= 0 and not (labels == SPECK).any():
            return [self.things[0]]
        side, shape = len(self.whole), self.sheet.ink.shape[:2]
        near, scale = _grow(labels), len(labels) / side
        starts, lengths = ink.place_in_square(shape, side)
        sides = zip(starts, shape, lengths, strict=True)
        middles = (start + (np.arange(count) + 0.5) * length / count for start, count, length in sides)
        rows, columns = ((middle * scale).astype(int) for middle in middles)
        owner = near[rows[:, None], columns]
        parts = list[DrawnThing | None]()
        for number in range(int(labels.max()) + 1):
            pause()
            parts.append(self.sheet.part(owner == number, side))
        return parts

    def _of_strokes(self, labels: Labels, drawn: Labels | None) -> Labels:
        """Finds the number on the square of each stroke, (s,); -1 for one that is not seen."""
        numbers = np.full(len(self.strokes), -1)
        if drawn is not None:
            seen = (labels >= 0) & (drawn >= 0)
            numbers[drawn[seen]] = labels[seen]
        return numbers

    def _dots(self, labels: Labels, halves: Labels) -> tuple[tuple[Stroke, ...], Labels, Labels]:
        """Puts a dot on the ink of each half of a thing in each small cell; returns their numbers and halves, too."""
        y, x = np.nonzero(labels >= 0)
        keys = labels[y, x], halves[y, x], y // _DOTTED, x // _DOTTED
        # As one number each, they are sorted in a tenth of the time.
        sizes = [int(key.max(initial=0)) + 1 for key in keys]
        groups, group_of, counts = np.unique(np.ravel_multi_index(keys, sizes), return_inverse=True, return_counts=True)
        (left, top), scale = self._on_square(len(labels))
        across, down = (np.bincount(group_of.ravel(), at + 0.5, len(counts)) / counts for at in (x, y))
        places = np.stack([left + across / scale[0], top + down / scale[1]], axis=1).round(4).tolist()
        thing, half, *_ = np.unravel_index(groups, sizes)
        return tuple(Stroke(((px, py),), width=0.0) for px, py in places), thing, half

    def _on_square(self, side: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Returns where on the paper a prepared square begins, and its pixels for each side of the paper."""
        assert self.sheet is not None
        rows, columns = self.sheet.ink.shape[:2]
        place = ink.place_in_square((rows, columns), len(self.whole))
        (top, left), (height, width) = np.array(place) * (side / len(self.whole))
        x, y, right, bottom = self.sheet.place((0, rows, 0, columns))
        across, down = width / (right - x), height / (bottom - y)
        return (x - left / across, y - top / down), (across, down)

    def stroke_map(self, side: int) -> Labels | None:
        """Draws which stroke each pixel of the prepared square is of, (side, side), -1 for none; None if unknown."""
        if not self.strokes or self.sheet is None:
            return None
        (x, y), (across, down) = self._on_square(side)
        paper = Image.new("I", (side, side), -1)
        draw, step = ImageDraw.Draw(paper), -(-sum(len(stroke.points) for stroke in self.strokes) // _MOST_DRAWN)
        for number, stroke in enumerate(self.strokes):
            pause()
            some = stroke.points if step == 1 else (*stroke.points[::step], stroke.points[-1])
            points = [((px - x) * across, (py - y) * down) for px, py in some]
            if stroke.filled and len(points) > 2:
                draw.polygon(points, fill=number)
            thick = max(1, round(stroke.width * across))
            draw.line(points, fill=number, width=thick, joint="curve")
            for px, py in (points[0], points[-1]):
                draw.ellipse((px - thick / 2, py - thick / 2, px + thick / 2, py + thick / 2), fill=number)
        return _grow(np.asarray(paper, np.int64))

    def owners(self, layers: Pixels, side: int) -> Labels:
        """Finds which layer of the paper, darkness (n, H, W), each pixel of the square is of: (side, side)."""
        assert self.sheet is not None
        (left, top), (height, width) = self.sheet.corner, np.array(self.sheet.ink.shape[:2]) * self.sheet.step
        (y, x), (rows, columns) = ink.place_in_square(self.sheet.ink.shape[:2], len(self.whole))
        shown = []
        for layer in layers:
            part = Image.fromarray(layer[top : top + height, left : left + width])
            square = Image.new("L", (len(self.whole),) * 2)
            square.paste(part.resize((columns, rows), Image.Resampling.BOX), (x, y))
            shown.append(np.asarray(square.resize((side, side), Image.Resampling.BILINEAR)))
        return np.asarray(np.stack(shown).argmax(axis=0))


def read_drawing(image: Image.Image, side: int, *, everything: bool = False) -> Drawing:
    """Prepares an RGB drawing as one thing, with its ink; with ``everything`` also writing. Raises BlankSketch."""
    darkness, box = ink.find_ink(image)
    step = max(1, -(-max(image.size) // _SEEN))
    seen = np.asarray(image)[::step, ::step]
    strong = _find_strong(darkness, step)
    paper = ink.paper_colour(image)
    coloured, filled = _find_coloured(seen, strong, paper)
    left_out: tuple[Box, ...] = ()
    if not everything:
        channel = subject.construction_channel(seen, darkness[::step, ::step] >= 40, filled)
        if channel is not None:
            left_out = (box,)
            darkness, box = ink.find_ink(image.getchannel(channel).convert("RGB"))
        if (drawn := subject.find_subject(darkness)) is not None:
            marked, left_out = drawn[0], (*left_out, *drawn[1])
            darkness[marked] = 0
            box = ink.box_of_ink(darkness > 0) or box
        if channel is not None or left_out:
            strong = _find_strong(darkness, step)
            coloured, filled = _find_coloured(seen, strong, paper)
    top, bottom, left, right = box
    if filled.any():
        # The network knows line drawings: of filled areas, only the outlines stay.
        inner = Image.fromarray(_erode(filled, 1)).resize(darkness.shape[::-1], Image.Resampling.NEAREST)
        darkness = np.where(np.asarray(inner), np.uint8(0), darkness)
    colours = lab(seen[coloured] / np.float32(255))
    palette = _palette(colours)
    # Not the soft edges of coloured strokes.
    black = strong & ~coloured
    black[black] = lab(seen[black] / np.float32(255))[:, 0] < _DARK
    tints = np.where(black, np.uint8(1 + len(palette)), np.uint8(0))
    if palette:
        tints[coloured] = 1 + np.linalg.norm(colours[:, None] - np.array(palette), axis=2).argmin(axis=1)
    whole = ink.centre(darkness[top:bottom, left:right], side)
    width, height = image.size
    place, *others = ((a / width, y / height, b / width, z / height) for y, z, a, b in (box, *left_out))
    tints = tints.repeat(step, axis=0).repeat(step, axis=1)[top:bottom, left:right]
    cropped = darkness[top:bottom, left:right]
    factor = -(-max(cropped.shape) // _KEPT)
    kept = np.stack([ink.keep_greatest(cropped, factor), tints[::factor, ::factor]], axis=-1)
    sheet = Sheet(kept, (left, top), factor, image.size, palette)
    thing = DrawnThing(whole, place, sheet._colours(np.ones(kept.shape[:2], np.bool_)))
    return Drawing(image.size, whole, (thing,), sheet, left_out=tuple(others))


def _together(things: Sequence[DrawnThing], size: tuple[int, int]) -> Pixels:
    """Draws prepared things on one prepared square, where they stand, as far as their pixels allow."""
    side = len(things[0].pixels)
    boxes = np.array([thing.box for thing in things]) * (*size, *size)
    first, last = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    square, middle = np.full((side, side, 3), 255, np.uint8), (first + last) / 2
    for thing, box in zip(things, boxes, strict=True):
        scale = max(box[2:] - box[:2]) / max(last - first)
        edge = max(1, round(side * scale))
        x, y = np.rint(side / 2 + ((box[:2] + box[2:]) / 2 - middle) * side / max(last - first) - edge / 2).astype(int)
        small = np.asarray(Image.fromarray(thing.pixels).resize((edge, edge), Image.Resampling.BICUBIC))
        there = square[max(0, y) : y + edge, max(0, x) : x + edge]
        there[:] = np.minimum(there, small[max(0, -y) :, max(0, -x) :][: there.shape[0], : there.shape[1]])
    return square


def _in_order(things: Iterable[DrawnThing]) -> tuple[DrawnThing, ...]:
    return tuple(sorted(things, key=lambda thing: thing.box[:2]))


def _grow(labels: Labels) -> Labels:
    """Spreads numbers to unnumbered (-1) pixels at most six steps away from them."""
    for _ in range(6):
        framed = np.pad(labels, 1, constant_values=-1)
        near = np.maximum.reduce([framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]])
        labels = np.where(labels < 0, near, labels)
    return labels


def _erode(marked: Mask, reach: int) -> Mask:
    """Marks what has nothing within ``reach`` pixels that is not marked, along both axes."""
    return np.asarray(Image.fromarray(np.uint8(marked)).filter(ImageFilter.MinFilter(2 * reach + 1))) > 0


# Colours.


def _find_strong(darkness: Pixels, step: int) -> Mask:
    """Marks ink, but for soft edges, in one of ``step`` rows and columns."""
    seen = darkness[::step, ::step]
    around = Image.fromarray(ink.keep_greatest(darkness, step)).filter(ImageFilter.MaxFilter(3))
    return np.asarray((seen >= _INKED) | ((seen >= _PALE) & (seen >= np.float32(_SOFT) * np.asarray(around))))


def _find_coloured(seen: Pixels, strong: Mask, paper: tuple[int, int, int]) -> tuple[Mask, Mask]:
    """Finds the ink of a colour or a chosen grey, and the areas that are filled with it, (h, w) each."""
    coloured = strong.copy()
    coloured[strong] = _chroma(seen[strong]) >= _LEAST_CHROMA
    if min(paper) == 255:
        greys = np.where(strong & (np.ptp(seen, axis=-1) == 0), seen[..., 0], 0)
        counts = np.bincount(greys[greys >= _INKED], minlength=256)
        coloured |= np.isin(greys, [grey for grey in _GREYS if counts[grey] > _FLAT * counts.sum()])
    tinted = bool(_chroma(np.array(paper, np.uint8)) >= _LEAST_CHROMA)
    if not coloured.any() and not tinted:
        return coloured, np.zeros_like(coloured)
    reach = max(1, round(_FILLED * max(seen.shape[:2]) / 2))
    filled = ~_erode(~_erode(strong if tinted else coloured, reach), reach)
    if tinted:
        # A pen on coloured paper has no colour of its own: to the person drawing, it is black or white.
        coloured = strong & filled
    return coloured, filled


def _chroma(colours: Pixels) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(lab(colours / np.float32(255))[..., 1:], axis=-1))


def _palette(colours: NDArray[np.float32]) -> tuple[tuple[float, float, float], ...]:
    left, palette = colours, list[tuple[float, float, float]]()
    while len(palette) < _PALETTE and len(left):
        # The colour of most ink is the middle of the fullest box of a coarse grid.
        boxes, counts = np.unique(np.floor(left / _SAME_COLOUR), axis=0, return_counts=True)
        middle = np.median(left[(np.floor(left / _SAME_COLOUR) == boxes[counts.argmax()]).all(axis=1)], axis=0)
        near = np.linalg.norm(left - middle, axis=1) < _SAME_COLOUR
        if near.sum() < _LEAST_SHARE * len(colours) / _PALETTE:
            break
        light, a, b = np.median(left[near], axis=0).tolist()
        palette.append((light, a, b))
        left = left[~near]
    return tuple(palette)

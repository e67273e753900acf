"""Defines the things of a drawing, and scores where photos show them, by regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine import Floats, Numbers, Tokens
from sketch_search.model.engine.detector import NO_KIND
from sketch_search.model.engine.tokens import join_columns, multiply_regions, unpack
from sketch_search.model.ranking import diffuse

# Constants of scenes were chosen by `training evaluate --protocol scenes --split val`, those of single things by
# `--protocol colours`; docs/research/searching.md has the alternatives.

# The weight of squared distance against a cosine: a quarter of the paper loses 0.125.
PLACES = 2.0
# If places count, how much the mean of the regions where a thing was drawn counts beside the best one, and the mean and
# the best of the others against it: a photo that shows a thing everywhere shows it nowhere in particular.
THERE, OTHERWISE, ELSEWHERE = 1.0, 0.6, 0.6
# The loss of cosine for each unit of the distance of two colours (CIE76), and the distance at which a box counts 1/e.
COLOURS, OTHER_BOX = 0.0075, 60.0
# Of several things, distances above this count alike, so that another colour of one does not outweigh another thing.
OTHER_COLOUR = 40.0
# How much regions that show guessed things count beside the thing, and from which cosine two regions share scores.
GUESSED, ALIKE = 2.5, 0.4
# The weight of the logarithm of how well a whole photo agrees with the guesses, and what is added before.
AGREEING, LEAST_AGREEING = 0.05, 0.06
# How much the whole drawing counts, as a cosine, where nobody knows what its things are.
WHOLE = 0.7
# How much a photo's box that fits a drawn thing counts, as a cosine, and how much further both reach on each side.
FIT, NEAR = 3.0, 0.05
# The power of how surely a box is of one of several things: where it lies tells as much.
CERTAINTY_OF_SEVERAL = 1 / 5
# Of what may be anywhere, larger boxes count more: their size to this power.
LARGE = 1 / 16
# A box is shown from this cubic root on, for example if a certain box is as likely as one to eight of the drawn kind.
SHOWN = 0.5
# Of a thing larger than this share of the paper's side, half of a cell's cosine is the mean of a window around it.
SMALL = 0.2
# How far below its best cosine a thing still reaches, as a share of what lies between it and the photo's mean.
EXTENT = 0.5
# From how far off the paper's middle on, across or down, a thing's place counts in full, as a share of the side.
ASIDE = 0.1
# The box of what may be anywhere.
ANYWHERE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Thing:
    """One thing of a drawing.

    tokens: a batch of one.
    box: left, top, right and bottom of its ink, as shares of the paper's width and height.
    colours: (c, 3) float32, its colours as CIELAB, at most three; none for black ink.
    shares: (c,) float32, the share of its ink for each; the rest is black.
    words: the numbers of words, any of which names it, in the place of guesses; none if nobody named it.
    strokes, second_half: as of a ``DrawnThing``.
    drawing_ret: (d,) float32, the [Ret] of the drawing that it is one of several things of; none if it is all of it.
    name: what a text calls it; empty if none does.
    """

    tokens: Tokens
    box: tuple[float, float, float, float] = ANYWHERE
    colours: Floats = field(default_factory=lambda: np.empty((0, 3), np.float32))
    shares: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    words: tuple[int, ...] = ()
    strokes: tuple[int, ...] = ()
    second_half: tuple[int, ...] = ()
    drawing_ret: Floats | None = None
    name: str = ""

    @property
    def place(self) -> tuple[float, float]:
        """The centre of its box, x and y in 0..1."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def side(self) -> float:
        """The side of a square as large as its box, in 0..1."""
        left, top, right, bottom = self.box
        return math.sqrt((right - left) * (bottom - top))

    @property
    def placed(self) -> float:
        """How much its place says, in 0..1: nothing if it fills the paper or is in its middle, where anyone draws."""
        return (1 - self.side) * min(1.0, max(abs(along - 0.5) for along in self.place) / ASIDE)

    @property
    def flatness(self) -> float:
        """The shorter side of its box in units of the longer one, in 0..1."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top) / max(right - left, bottom - top)

    def covers(self, centres: Floats) -> NDArray[np.bool_]:
        """Tells which of a photo's cells, by their centres (m, 2), lie in its box, or else which is nearest: (m,)."""
        (left, top, right, bottom), (x, y) = self.box, centres.T
        inside: NDArray[np.bool_] = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
        if not inside.any():
            inside[((centres - self.place) ** 2).sum(axis=1).argmin()] = True
        return inside

    def colour_distance(self, colours: Floats, most: float = math.inf) -> Floats:
        """Returns the CIE76 distances of its colours, summed by their shares, to others (..., 3), at most ``most``."""
        away = np.zeros(colours.shape[:-1], np.float32)
        for colour, share in zip(self.colours, self.shares, strict=True):
            away += share * np.linalg.norm(colours - colour, axis=-1)
        return np.minimum(away, np.float32(most))


@dataclass(frozen=True)
class Matched:
    """The regions of p photos that match each of t things best.

    scores: (t, p) float32. cells: (t, p), row by row from the top left. regions: (t, p, r) float16, of length 1.
    colours: (t, p, 3) float32, CIELAB, of these regions. extents: (t, p, m) bool, see ``extents``; or m is 0.
    boxes: (t, p, 6) uint8, the box that fits each thing best, as a photo's boxes; of no kind if none fits. box_fits,
    presence, of_kind: (t, p) float32 in 0..1, how well that box fits, and how surely any shows the thing, and its kind
    in whatever colour.
    """

    scores: Floats
    cells: Numbers
    regions: NDArray[np.float16]
    colours: Floats
    extents: NDArray[np.bool_]
    boxes: NDArray[np.uint8]
    box_fits: Floats
    presence: Floats
    of_kind: Floats

    @staticmethod
    def joined(parts: Sequence[Matched]) -> Matched:
        """Joins photos."""
        return Matched(**join_columns(parts, axis=1))

    def __getitem__(self, photos: Numbers | NDArray[np.bool_] | slice) -> Matched:
        return Matched(**{name: column[:, photos] for name, column in vars(self).items()})

    def cosines(self, directions: Floats) -> Floats:
        """Compares the regions with the directions (t, r) of the things, (t, p) float32."""
        return np.asarray(np.einsum("tpr,tr->tp", self.regions.astype(np.float32), directions))

    def diffused(self, directions: Floats) -> Floats:
        """Lets the regions that match a thing share their cosines if they look alike: scores as before, (t, p) float32.

        It is ``model.ranking.diffuse`` for regions in the place of photos. What place and colours take off stays.
        directions: (t, r) of length 1.
        """
        after = self.scores.copy()
        for row, cosines in enumerate(self.cosines(directions)):
            regions = self.regions[row].astype(np.float32)
            after[row] += diffuse(cosines[None], regions, ALIKE, "things")[0] - cosines
        return after


def match_things(
    things: Sequence[Thing],
    directions: Floats,
    regions: NDArray[np.uint8],
    colours: NDArray[Any],
    kinds: Floats,
    boxes: NDArray[np.uint8],
    places: float,
    *,
    find_extents: bool = False,
) -> Matched:
    """Finds the region of each photo that matches each thing best, and scores the photo by it.

    With s_c half the cosine of a thing's direction and the region at cell c of a photo, and half the mean of these
    cosines in the ``window`` around it, d_c the distance of their places as shares of the photo's and the paper's
    sides, and e_c the distance of their colours (of several things at most OTHER_COLOUR), a cell's score is

        s_c - places d_c^2 - COLOURS e_c.

    A photo's score is that of its best cell, and, if places count, with b the cells that the thing's box covers, o the
    others, and w the root of the box's area in units of its mean over the things,

        + w (THERE mean_b s_c - OTHERWISE mean_o s_c) - ELSEWHERE max_o s_c,

    and FIT times how well a box of the photo fits the thing (``fit_boxes``).

    directions: (t, r) of length 1, of the things. regions, colours: (p, m, r / 2), packed, and (p, m, 3), of p photos.
    kinds, boxes: (t, k), how probably each thing is of each kind of the detector, and (p, b, 6), of the photos.
    places: PLACES, another weight, or 0 if places do not count.
    find_extents: whether to find the extents of things, and of what shows them the colours nearest to their own.
    """
    centres = places_of_cells(regions.shape[1])
    lost = np.stack([((centres - thing.place) ** 2).sum(axis=1) for thing in things]) * np.float32(places)
    inside = [thing.covers(centres) for thing in things]
    cosines = np.moveaxis(multiply_regions(regions, directions), -1, 0)
    # The side of a box that is all of the paper is not that of a thing: the thing may be named and not drawn.
    sides = [SMALL if of_thing.all() else thing.side for thing, of_thing in zip(things, inside, strict=True)]
    cosines = np.stack([of_thing @ window(side, len(centres)) for of_thing, side in zip(cosines, sides, strict=True)])
    scores = cosines - lost[:, None]
    most = _most(things)
    for of_thing, thing in zip(scores, things, strict=True):
        if len(thing.colours):
            of_thing -= np.float32(COLOURS) * thing.colour_distance(colours, most)
    cells, best = scores.argmax(axis=-1), scores.max(axis=-1)
    if places:
        for of_thing, there, seen, weight in zip(best, inside, cosines, _weights(things), strict=True):
            others = np.ones_like(there) if there.all() else ~there
            # Products and sums with a mask take a quarter of the time of choosing columns.
            means = THERE * there / there.sum() - OTHERWISE * others / others.sum()
            of_thing += seen @ (weight * means.astype(np.float32))
            of_thing -= np.float32(ELSEWHERE) * (seen + np.where(others, 0, -np.inf).astype(np.float32)).max(axis=1)
    photos = np.arange(len(regions))
    shown = extents(cosines, cells) if find_extents else np.zeros((*cells.shape, 0), np.bool_)
    chosen, seen_colours = unpack(regions[photos, cells]).astype(np.float16), colours[photos, cells].astype(np.float32)
    fits = fit_boxes(things, kinds, boxes, colours, placed=places > 0)
    best += np.float32(FIT) * fits.best
    for row, thing in enumerate(things):
        if find_extents and len(thing.colours):
            seen_colours[row] = _nearest_colours(thing, fits.boxes[row], shown[row], centres, colours)
    return Matched(best, cells, chosen, seen_colours, shown, fits.boxes, fits.best, fits.presence, fits.of_kind)


def _nearest_colours(
    thing: Thing, boxes: NDArray[np.uint8], extents: NDArray[np.bool_], centres: Floats, colours: NDArray[Any]
) -> Floats:
    """Returns the colour in each photo's box or extent that is nearest to a thing's, (p, 3): a red car's is red."""
    nearest = np.empty((len(boxes), 3), np.float32)
    for photo, (box, extent) in enumerate(zip(boxes, extents, strict=True)):
        of_box = replace(thing, box=tuple((box[2:] / 255).tolist()))
        showing = extent if box[0] == NO_KIND else of_box.covers(centres)
        shown = colours[photo, showing].astype(np.float32)
        nearest[photo] = shown[thing.colour_distance(shown).argmin()]
    return nearest


def _colours_inside(boxes: NDArray[np.uint8], colours: NDArray[Any]) -> Floats:
    """Averages the colours (p, m, 3) of photos in the middle half of the width and height of boxes: (p, b, 3)."""
    side, corners = math.isqrt(colours.shape[1]), boxes[..., 2:].astype(np.float32)
    quarter, cell = (corners[..., 2:] - corners[..., :2]) / 4, np.float32(255 / side)
    low, high = (corners[..., :2] + quarter)[..., None], (corners[..., 2:] - quarter)[..., None]
    starts = np.arange(side, dtype=np.float32) * cell
    # How much of each column and row of cells lies inside, (p, b, 2, side).
    inside = np.maximum(np.minimum(high, starts + cell) - np.maximum(low, starts), np.float32(1e-6))
    inside /= inside.sum(axis=-1, keepdims=True)
    rows = inside[:, :, 1] @ colours.reshape(len(colours), side, side * 3).astype(np.float32)
    return np.asarray(np.einsum("pbx,pbxc->pbc", inside[:, :, 0], rows.reshape(*rows.shape[:2], side, 3)))


class BoxFits(NamedTuple):
    """How well boxes of p photos fit each of t things, all in 0..1.

    best: (t, p) of the box that fits best. boxes: (t, p, 6) uint8, these boxes; of no kind if none fits. presence,
    of_kind: (t, p), how surely any box shows the thing, and its kind in any colour.
    """

    best: Floats
    boxes: NDArray[np.uint8]
    presence: Floats
    of_kind: Floats


def fit_boxes(
    things: Sequence[Thing],
    kinds: Floats,
    boxes: NDArray[np.uint8],
    colours: NDArray[Any] | None = None,
    *,
    placed: bool,
) -> BoxFits:
    """Finds the box of each photo that fits each thing best.

    A box fits by the cubic root of how probably the thing is of its kind times its certainty, or of several things with
    places the fifth, times the overlap of both: the intersection over the union of boxes that reach NEAR further; or of
    what may be anywhere, the power LARGE of the box's size. If a thing has colours, and those of cells (p, m, 3) are
    given, how sure a box is of it falls by exp(-(e / OTHER_BOX)^2), with e the distance of the box's mean colour, of
    several things at most OTHER_COLOUR. A box is of one thing alone, the one that it fits best, so that two horses are
    not found in one.
    """
    near, (count, slots) = np.float32(NEAR), boxes.shape[:2]
    # Most slots hold no box, and most boxes are of no kind that was drawn.
    probable = np.zeros((len(things), NO_KIND + 1), np.float32)
    probable[:, : kinds.shape[1]] = kinds
    photo, slot = np.nonzero(probable.max(axis=0)[boxes[..., 0]])
    likely = boxes[photo, slot]
    corners = likely[:, 2:] / np.float32(255) + np.array([-near, -near, near, near])
    sizes = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    sure, fitting = np.zeros((2, len(things), count, slots), np.float32)
    of_kind = np.zeros((len(things), count), np.float32)
    inside = None
    if colours is not None and any(len(thing.colours) for thing in things):
        inside = _colours_inside(boxes, colours)[photo, slot]
    for row, thing in enumerate(things):
        certain = probable[row][likely[:, 0]] * likely[:, 1] / np.float32(255)
        surely = np.cbrt(certain)
        np.maximum.at(of_kind[row], photo, surely)
        # However these count beside places, a box is shown, and its kind is seen, from one certainty on.
        several = len(things) > 1 and thing.box != ANYWHERE
        fit = certain ** np.float32(CERTAINTY_OF_SEVERAL) if several else surely
        if inside is not None and len(thing.colours):
            alike = np.exp(-((thing.colour_distance(inside, _most(things)) / np.float32(OTHER_BOX)) ** 2))
            surely, fit = surely * alike, fit * alike
        if placed and thing.box != ANYWHERE:
            low, high = np.array(thing.box, np.float32).reshape(2, 2) + np.array([[-near], [near]])
            both = np.minimum(corners[:, 2:], high) - np.maximum(corners[:, :2], low)
            both = np.maximum(both[:, 0], 0) * np.maximum(both[:, 1], 0)
            fit = fit * (both / (sizes + (high - low).prod() - both))
        else:
            fit = fit * sizes**LARGE
        sure[row, photo, slot], fitting[row, photo, slot] = surely, fit
    return BoxFits(*_assign_boxes(fitting, sure, boxes), sure.max(axis=2), of_kind)


def _assign_boxes(fitting: Floats, sure: Floats, boxes: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.uint8]]:
    """Gives each thing a box of its own in each photo: how well it fits, (t, p), and the box, (t, p, 6).

    fitting: (t, p, b), how well each box fits; it is overwritten. sure: (t, p, b), how surely the box shows the thing.
    """
    things, count, slots = fitting.shape
    fits, photos = np.zeros((things, count), np.float32), np.arange(count)
    chosen = np.full((things, count, 6), NO_KIND, np.uint8)
    for _ in range(things):
        # Of the things and boxes that are left, the best pair in each photo.
        thing_of, box_of = np.divmod(fitting.swapaxes(0, 1).reshape(count, things * slots).argmax(axis=1), slots)
        fits[thing_of, photos] = fitting[thing_of, photos, box_of]
        shown = (fits[thing_of, photos] > 0) & (sure[thing_of, photos, box_of] >= SHOWN)
        chosen[thing_of[shown], photos[shown]] = boxes[photos[shown], box_of[shown]]
        fitting[:, photos, box_of] = np.minimum(fitting[:, photos, box_of], 0)
        fitting[thing_of, photos] = -1
    return fits, chosen


def _most(things: Sequence[Thing]) -> float:
    """Returns the distance of colours above which all count alike."""
    return OTHER_COLOUR if len(things) > 1 else math.inf


def _weights(things: Sequence[Thing]) -> Floats:
    """Where a large thing is says more than where a small one is: (t,), of mean 1."""
    sides = np.array([thing.side for thing in things], np.float32) + np.float32(1e-3)
    return np.asarray(sides / sides.mean())


def extents(cosines: Floats, cells: Numbers) -> NDArray[np.bool_]:
    """Finds how far a thing reaches around its best cell: (..., m) bool.

    These are the cells from which a way of neighbours leads to it, all at most half as far below its cosine as the
    mean of the photo is. cosines: (..., m), of all cells of each photo. cells: (...), the best ones.
    """
    side, best = math.isqrt(cosines.shape[-1]), np.take_along_axis(cosines, cells[..., None], axis=-1)
    alike = (cosines >= best - EXTENT * (best - cosines.mean(axis=-1, keepdims=True))).reshape(*cells.shape, side, side)
    reached = (np.arange(side * side) == cells[..., None]).reshape(alike.shape)
    for _ in range(side * side):
        near = np.pad(reached, [(0, 0)] * cells.ndim + [(1, 1), (1, 1)])
        near = near[..., :-2, 1:-1] | near[..., 2:, 1:-1] | near[..., 1:-1, :-2] | near[..., 1:-1, 2:]
        further = reached | (near & alike)
        if (further == reached).all():
            break
        reached = further
    return np.asarray(reached.reshape(cosines.shape))


@lru_cache(maxsize=16)
def window(side: float, count: int) -> Floats:
    """Returns what averages each of ``count`` cells with a window nearly as large as a thing, (count, count)."""
    cells = np.arange(math.isqrt(count))
    reach = max(0.0, side - SMALL) / 2 * len(cells)
    # Cells at the border count in part, so that a small change of the side is a small change of the score.
    along = np.clip(1 + reach - abs(cells - cells[:, None]), 0, 1)
    along /= along.sum(axis=0)
    return ((np.eye(count) + np.kron(along, along)) / 2).astype(np.float32)


@cache
def places_of_cells(count: int) -> Floats:
    """Returns the centres of a square grid of ``count`` cells, (count, 2) x and y in 0..1, row by row."""
    side = math.isqrt(count)
    along = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    return np.stack([np.tile(along, side), np.repeat(along, side)], axis=1)

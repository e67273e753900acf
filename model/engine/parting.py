"""Divides the ink of a drawing into its things, by a small network over the sketch encoder's patch tokens.

The ink is cut into pieces: what is connected within one of CELLS x CELLS cells, and of one stroke if strokes are known.
Where that makes more than MOST_PIECES, as in stippling, a piece is all ink of a cell, of strokes near each other; if
need be, of larger cells.
Two transformer layers see all pieces, and give each a direction; two pieces belong to one thing with the probability

    p = sigmoid(a cosine + b - w distance - g gap + c connected + o),

where the gap is that between the connected ink of the two, 0 if it is the same. People draw one thing after the other:
if the strokes of both are known, o is min(1, 2 (n - 1) / FEW) NEXT - SINCE log max(1, min(1, sqrt(FEW / n)) d), else 0,
where one is drawn d strokes after the other, and there are n.

Pieces are joined by average linkage of p, weighted by their ink, as long as it is at least CUT. The
last two groups are joined even if it is a little less. If all is one thing, the p that comes nearest to the cut says
how sure that is: its two groups are two things with the odds exp(-(p - CUT) / SLOPE).

A line from side to side, such as the ground, is of no thing if what it joins stands apart without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketch_search.model.engine.tokens import Floats, softmax, unit
from sketch_search.model.images import MAX_THINGS, SPECK, connected, neighbours
from sketch_search.model.limits import pause

#: Side of the square that is divided, in pixels, and how many cells a side cut its ink.
SIDE, CELLS = 168, 24
#: The most pieces, since each is compared with each. Of 900 sketches of the data, none has more than 469.
MOST_PIECES = 1024
#: Pixels of at least this darkness are ink.
INK = 50
# The side of a piece's rasters, pixels of a cell for its own ink and for all ink around it, and waves of its place.
_RASTER, _OWN, _AROUND, _WAVES = 8, 2, 4, 4
#: Heads of the attention.
HEADS = 4
# Groups are joined from a mean probability of CUT on, and the last two from WHOLE - SURE p on, with p the probability
# of the best guess for the whole drawing, chosen by `evaluate --protocol parting`. A group with less than the share
# LEAST of the ink joins the likeliest other one, or is a speck if that is less likely than STRANGE.
CUT, WHOLE, SURE, LEAST, STRANGE = 0.5, 0.45, 0.2, 0.05, 0.2
# One thing may be several if a join is within UNSURE of the cut; several may be one in any case, with the odds AS_ONE.
# This division counts then, too, and costs a search of its own: `evaluate --protocol scenes --split val` measures it.
UNSURE, SLOPE, AS_ONE = 0.25, 0.4, 0.2
# The evidence of the order of strokes, chosen on scenes of drawings of every second class of the data's strokes.
NEXT, SINCE, FEW = 3.0, 2.5, 8
# Things are cut into their bodies if so many of these look alike, by the cosine of rasters of so many cells a side, and
# have at least such a side, as a share of the square, and such a proportion: five cows, but not tufts or waves.
REPEATED, ALIKE, BODY, LEAST_BODY, LEAST_FLAT = 3, 0.6, 12, 0.055, 0.4
# A line has ink near it in the share SPANNED of all columns, is at most THICK pixels, and no steeper than STEEP.
# Within NEAR pixels of it ink is the line's, and strokes with the share OF_LINE of their ink there. Of 300 sketches 48
# have one; none was divided because of it.
SPANNED, THICK, STEEP, NEAR, OF_LINE = 0.95, 6, 0.15, 3, 0.8
# What stands on a line has at least such a side, as a share of the square, and such a proportion, and is covered by the
# thing beside it up to the share COVERED. One thing has at most the share SHORT of the line's length.
LEAST_STANDING, LEAST_WIDE, COVERED, SHORT = 0.15, 0.25, 0.15, 0.6
Labels: TypeAlias = NDArray[np.int64]
#: Another division of a drawing, and how probable it is.
Other: TypeAlias = tuple[float, Labels]


@dataclass(frozen=True)
class Pieces:
    """The k pieces of a drawing's ink.

    labels: (SIDE, SIDE), the number of the piece of each pixel, or -1. centres: (k, 2), y and x in 0..1.
    pixels: (k,) float32, how many there are. shapes: (k, s) float32, what each looks like, and the ink around it.
    gaps: (k, k) float32, the distance of the ink that is connected with each, 0 if it is the same.
    strokes: (k,), the stroke of each, -1 if unknown.
    """

    labels: Labels
    centres: Floats
    pixels: Floats
    shapes: Floats
    gaps: Floats
    strokes: Labels

    def __len__(self) -> int:
        return len(self.pixels)

    @staticmethod
    def of(darkness: NDArray[np.uint8], strokes: Labels | None = None, told: Labels | None = None) -> Pieces:
        """Cuts ink, (SIDE, SIDE), 0 on paper, into at most MOST_PIECES pieces. strokes, told: as for ``divide``."""
        ink, stroke_map = darkness >= INK, np.full(darkness.shape, -1) if strokes is None else strokes
        y, x = np.nonzero(ink)
        number = np.full(ink.shape, -1)
        number[y, x] = np.arange(len(y))
        pairs, cells, stroke, side = neighbours(number), _cells(y, x, CELLS), stroke_map[y, x], CELLS
        within = np.logical_and(*(values[pairs[0]] == values[pairs[1]] for values in (cells, stroke)))
        _, piece = np.unique(connected(pairs[:, within], len(y)), return_inverse=True)
        while piece.max(initial=-1) >= MOST_PIECES:
            cells, stroke, side = _cells(y, x, side), _join_strokes(y, x, stroke, told, side), side // 2
            _, piece = np.unique(cells * (stroke.max() + 2) + stroke, return_inverse=True)
        labels = np.full(ink.shape, -1)
        labels[y, x] = piece
        pixels = np.bincount(piece).astype(np.float32)
        centres = (np.stack([np.bincount(piece, at) for at in (y, x)], axis=1) / pixels[:, None]).astype(np.float32)
        of_piece = np.full(len(pixels), -1)
        of_piece[piece] = stroke
        shapes = _shapes(darkness, labels, centres)
        centres = (centres + np.float32(0.5)) / np.float32(SIDE)
        return Pieces(labels, centres, pixels, shapes, _gaps(centres, connected(piece[pairs], len(pixels))), of_piece)

    def features(self, patches: Floats) -> Floats:
        """Describes pieces, (k, f): patches there, shape, place, size. patches: (b, n, e), of b blocks, row by row."""
        side = round(patches.shape[1] ** 0.5)
        # Bilinear: along each axis a triangle around the place.
        at = np.clip(self.centres * side - 0.5, 0, side - 1)
        down, across = (np.maximum(0, 1 - np.abs(at[:, [axis]] - np.arange(side))) for axis in (0, 1))
        near = (down[:, :, None] * across[:, None]).reshape(len(self), -1).astype(np.float32)
        angles = (self.centres[..., None] * (np.pi / 2 * 2 ** np.arange(_WAVES))).reshape(len(self), -1)
        place = [np.sin(angles), np.cos(angles), np.log1p(self.pixels)[:, None] / 4]
        parts = [*(near @ _standardize(patches)), self.shapes, *place]
        return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Parting:
    """The network, by its arrays, which are named as those of ``PartingNetwork`` in ``training.papers``."""

    weights: Mapping[str, Floats]

    @staticmethod
    def of(arrays: Mapping[str, Any]) -> Parting:
        return Parting({name: np.asarray(array, np.float32) for name, array in arrays.items()})

    def arrays(self) -> dict[str, Any]:
        """Returns the arrays from which ``of`` makes it."""
        return dict(self.weights)

    def divide(
        self,
        patches: Floats,
        darkness: NDArray[np.uint8],
        strokes: Labels | None = None,
        told: Labels | None = None,
        sure: float = 0.0,
    ) -> tuple[Labels, Labels, Other | None]:
        """Numbers things from 0, (SIDE, SIDE), -1 for paper, SPECK for specks; and their halves, 0 and 1.

        The halves of a thing are the two groups of which it was joined at last. Returns also another division: of
        several things into one, or of one thing by its least sure join, if that is unsure. It is None if a person said
        what is one thing.

        patches: (b, n, e), the tokens of all patches of the square from b blocks of the encoder, row by row.
        darkness: (SIDE, SIDE) uint8, the ink of the square, 0 on paper.
        strokes: (SIDE, SIDE), the number of the stroke of each pixel, or -1; a stroke belongs to one thing.
        told: which thing each stroke belongs to as a person said, or -1. Strokes of the same number are one thing, and
            those of different ones never are. Of more than MAX_THINGS numbers, those with most ink count.
        sure: the probability of the best guess for the whole drawing. The higher it is, the more readily the last two
            groups are joined.
        """
        if told is not None and strokes is not None:
            told = _most_inked(told, strokes[(darkness >= INK) & (strokes >= 0)])
        line, alone = find_line(darkness >= INK, strokes)
        drawn = strokes[line & (strokes >= 0)] if strokes is not None else np.zeros(0, np.int64)
        inks = [darkness]
        if line.any() and not (told is not None and len(drawn) and told[drawn].max() >= 0):
            inks.append(np.where(line, 0, darkness).astype(np.uint8))
        cut = [Pieces.of(ink, strokes, told) for ink in inks]
        related = [(pieces, self.probabilities(pieces.features(patches), pieces)) for pieces in cut if len(pieces)]
        nobody = told is None or bool((told < 0).all())

        def group(shift: float) -> tuple[Labels, Labels, float]:
            whole, *without = (_group(*of, told, sure, shift) for of in related)
            if not without or not _stand_apart(without[0][0], whole[0], line):
                return whole
            # What the line crosses belongs to what is near.
            things, halves = (np.where(line, np.where(alone, SPECK, -1), of) for of in without[0][:2])
            return things, halves, without[0][2]

        if not related:
            return cut[0].labels, cut[0].labels, None
        things, halves, margin = group(0)
        if nobody and things.max() > 0:
            return things, halves, (AS_ONE / (1 + AS_ONE), np.where(things == -1, -1, 0))
        if not nobody or abs(margin) > UNSURE:
            return things, halves, None
        other, *_ = group(margin + math.copysign(1e-6, margin))
        probability = 1 / (1 + math.exp(abs(margin) / SLOPE))
        return things, halves, (probability, other) if other.max() > 0 else None

    def probabilities(self, features: Floats, pieces: Pieces) -> Floats:
        """Returns how probably each two of k pieces, with these features (k, f), belong to one thing: (k, k)."""
        w = self.weights
        x = self._linear(features, "first")
        layer = 0
        while (name := f"layers.{layer}") + ".linear1.weight" in w:
            y = self._norm(x, f"{name}.norm1")
            mixed: Floats = y @ w[f"{name}.self_attn.in_proj_weight"].T + w[f"{name}.self_attn.in_proj_bias"]
            q, k, v = mixed.reshape(len(x), 3, HEADS, -1).transpose(1, 2, 0, 3)
            # One head after the other, which takes a quarter of the memory.
            heads = [_attend(*of_head) for of_head in zip(q, k, v, strict=True)]
            x = x + self._linear(np.concatenate(heads, axis=1), f"{name}.self_attn.out_proj")
            y = self._linear(self._norm(x, f"{name}.norm2"), f"{name}.linear1")
            x = x + self._linear(np.maximum(y, 0), f"{name}.linear2")
            layer += 1
        directions = unit(self._linear(self._norm(x, "last"), "direction"))
        cosine, bias, distance, gap, connected = w["pairs"]
        logits = cosine * (directions @ directions.T) + bias - distance * _distances(pieces.centres)
        logits += connected * (pieces.gaps == 0) - gap * pieces.gaps
        logits += _succession(pieces.strokes)
        return np.asarray(1 / (1 + np.exp(-logits)))

    def _linear(self, x: Floats, name: str) -> Floats:
        return np.asarray(x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"])

    def _norm(self, x: Floats, name: str) -> Floats:
        return np.asarray(_standardize(x) * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])


def find_line(ink: NDArray[np.bool_], strokes: Labels | None = None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Finds the ink of a line from side to side of a drawing, (SIDE, SIDE), and which of it crosses nothing else.

    strokes: as for ``Parting.divide``; the line is then of whole strokes. Nothing is marked if there is none.
    """
    none = np.zeros_like(ink)
    columns = np.flatnonzero(ink.any(axis=0))
    if len(columns) < 2 or columns[-1] - columns[0] < SIDE // 3:
        return none, none
    width = columns[-1] - columns[0] + 1
    part, across, rows = ink[:, columns[0] : columns[-1] + 1], np.arange(width), np.arange(SIDE)[:, None]
    thick = np.logical_or.reduce([np.roll(part, step, axis=0) for step in range(1 - NEAR, NEAR)])
    reached, line = 0.0, rows
    for slope in np.linspace(-STEEP, STEEP, 13):
        at = rows + np.rint(slope * (across - width / 2)).astype(np.int64)
        covered = (thick[at.clip(0, SIDE - 1), across] & (at >= 0) & (at < SIDE)).mean(axis=1)
        if covered.max() > reached:
            reached, line = float(covered.max()), at[covered.argmax()]
    if reached < SPANNED:
        return none, none
    distance = abs(rows - line)
    near = part & (distance <= NEAR)
    around = [(part & (distance <= NEAR + more)).sum(axis=0) for more in (0, 4, 5)]
    if np.median(around[2][around[0] > 0]) > THICK:
        return none, none
    marked, alone = none.copy(), none.copy()
    marked[:, columns[0] : columns[-1] + 1] = near
    alone[:, columns[0] : columns[-1] + 1] = near & (around[1] <= around[0])
    if strokes is not None and (strokes >= 0).any():
        inked = ink & (strokes >= 0)
        of_line, of_all = (np.bincount(strokes[of], minlength=strokes.max() + 1) for of in (inked & marked, inked))
        marked = alone = inked & (of_line >= OF_LINE * np.maximum(1, of_all))[strokes]
    return marked, alone


def _stand_apart(rest: Labels, whole: Labels, line: NDArray[np.bool_]) -> bool:
    """Returns whether a drawing without a line, and not with it, is of things beside each other, or of one thing less.

    rest, whole: the things without and with the line, (SIDE, SIDE).
    """
    lines = sum(bool(line[whole == number].mean() > 0.6) for number in range(whole.max() + 1))
    before, after = int(whole.max()) + 1, int(rest.max()) + 1
    if lines and 0 < after < before:
        return True
    if after == before == 1:
        lengths = [np.ptp(np.flatnonzero(of.any(axis=0))) for of in (rest >= 0, line)]
        return bool(lengths[0] <= SHORT * lengths[1])
    if after < 2 or after < before - lines:
        return False
    places = [np.argwhere(rest == number) for number in range(after)]
    boxes = sorted((*at.min(axis=0)[::-1], *(at.max(axis=0)[::-1] + 1)) for at in places)
    sides = [(right - left, bottom - top) for left, top, right, bottom in boxes]
    bodies = all(max(of) >= LEAST_STANDING * SIDE and min(of) >= LEAST_WIDE * max(of) for of in sides)
    pairs = zip(boxes, boxes[1:], sides, sides[1:], strict=False)
    return bodies and all(one[2] - other[0] <= COVERED * min(wide[0], next_[0]) for one, other, wide, next_ in pairs)


def _attend(q: Floats, k: Floats, v: Floats) -> Floats:
    pause()
    return np.asarray(softmax(q @ k.T / np.float32(np.sqrt(q.shape[-1]))) @ v)


def _standardize(x: Floats) -> Floats:
    """Scales vectors along the last dimension to mean 0 and variance 1, as LayerNorm does."""
    x = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(1e-5)))


def count_features(encoder_width: int) -> int:
    """Returns how many numbers describe a piece, with the tokens of two blocks."""
    return 2 * encoder_width + 2 * _RASTER**2 + 4 * _WAVES + 1


def _group(
    pieces: Pieces, probabilities: Floats, told: Labels | None, sure: float, shift: float
) -> tuple[Labels, Labels, float]:
    """Numbers things and their halves, as ``divide``, with all ink as a part of them; and ``join_pieces``' margin."""
    things, halves, margin = join_pieces(probabilities, pieces, told, WHOLE - SURE * sure, shift)
    if told is None or (told < 0).all():
        things = part_repeated(pieces, things)
    first, second = (np.where(pieces.labels >= 0, of[pieces.labels], -1) for of in (things, halves))
    return first, second, margin


def join_pieces(
    probabilities: Floats, pieces: Pieces, told: Labels | None, whole: float, shift: float = 0.0
) -> tuple[Labels, Labels, float]:
    """Joins pieces by average linkage, weighted by their pixels: the number of the thing of each, (k,), from 0.

    Returns also the half of its thing in which each is, 0 or 1, and the margin: by how much the probability that came
    nearest to the cut exceeds it; negative below it. whole: the cut of the last two. shift: what is added to both cuts.

    Pieces of one stroke are one to begin with; strokes that were ``told`` to be one are joined first. Groups with a
    smaller share of the pixels than LEAST join the likeliest other one, and so do the smallest of more than
    MAX_THINGS; specks have the number SPECK.
    """
    known = pieces.strokes >= 0
    strokes = np.where(known, pieces.strokes, pieces.strokes.max() + 1 + np.arange(len(pieces)))
    _, labels = np.unique(strokes, return_inverse=True)
    belongs = (labels == np.arange(labels.max() + 1)[:, None]) * pieces.pixels
    sums, sizes = belongs.astype(np.float64) @ probabilities @ belongs.T, belongs.sum(axis=1).astype(np.float64)
    said = np.full(len(sizes), -1)
    if told is not None and len(told):
        said[labels[known]] = told[pieces.strokes[known]]
    mean = _as_said(sums / np.outer(sizes, sizes), said[:, None], said)
    np.fill_diagonal(mean, -np.inf)
    groups, total, count = np.arange(len(sizes)), sizes.sum(), len(sizes)
    # The likeliest other group of each, and how likely it is.
    likeliest = mean.argmax(axis=1)
    likely = mean[groups, likeliest]

    def find_again(stale: NDArray[np.bool_]) -> None:
        likeliest[stale] = mean[stale].argmax(axis=1)
        likely[stale] = mean[stale, likeliest[stale]]

    # The sizes of groups that are left; infinite for others.
    halves, left, margin = np.zeros(len(sizes), np.int64), sizes.copy(), np.inf
    while count > 1:
        pause()
        source = int(likely.argmax())
        target = int(likeliest[source])
        beyond = float(likely[source] - shift - (min(CUT, whole) if count == 2 else CUT))
        margin = min(margin, beyond, key=abs)
        if beyond < 0:
            small = np.where(said >= 0, np.inf, left)
            source = int(small.argmin())
            if not np.isfinite(small[source]) or (small[source] >= LEAST * total and count <= MAX_THINGS):
                break
            target = int(likeliest[source])
            if small[source] < LEAST * total and mean[source, target] < STRANGE:
                # A speck: no part of anything.
                left[source], groups[groups == source] = np.inf, -1
                sums[:, source] = mean[source] = mean[:, source] = likely[source] = -np.inf
                find_again(likeliest == source)
                count -= 1
                continue
        joined = groups == source
        halves[groups == target], halves[joined] = 0, 1
        groups[joined] = target
        count -= 1
        sums[target] += sums[source]
        sums[:, target] = sums[target]
        sums[:, source] = mean[source] = mean[:, source] = likely[source] = -np.inf
        sizes[target] = left[target] = sizes[target] + sizes[source]
        left[source] = np.inf
        said[target] = max(said[source], said[target])
        row = sums[target] / (sizes[target] * sizes)
        if said[target] >= 0:
            row = _as_said(row, said[target], said)
        row[target] = -np.inf
        mean[target] = mean[:, target] = row
        nearer = (row > likely) | ((row == likely) & (target <= likeliest))
        likely[nearer], likeliest[nearer] = row[nearer], target
        stale = ~nearer & ((likeliest == source) | (likeliest == target))
        stale[target] = True
        find_again(stale)
    kept, things = np.unique(groups, return_inverse=True)
    things = things - int(kept[0] < 0)
    return np.where(things < 0, SPECK, things)[labels], halves[labels], margin


def part_repeated(pieces: Pieces, things: Labels) -> Labels:
    """Makes each body of a thing a thing of its own, if at least REPEATED bodies look like one in it: (k,).

    There are never more than MAX_THINGS.
    """
    bodies, starts, ends = _bodies(pieces, things)
    owners, sides = things[np.unique(bodies, return_index=True)[1]], ends - starts
    large = (np.sqrt(sides.prod(axis=1)) >= LEAST_BODY * SIDE) & (owners >= 0)
    compared = np.flatnonzero(large & (sides.min(axis=1) >= LEAST_FLAT * sides.max(axis=1)))
    if len(compared) < REPEATED:
        return things
    shown, rasters = np.append(bodies, -1)[pieces.labels], np.zeros((len(compared), BODY**2), np.float32)
    for raster, body in zip(rasters, compared, strict=True):
        (top, left), (bottom, right) = starts[body], ends[body]
        cut = Image.fromarray((shown[top:bottom, left:right] == body).astype(np.float32))
        raster[:] = np.asarray(cut.resize((BODY, BODY), Image.Resampling.BOX)).ravel()
    normal = unit(rasters - rasters.mean(axis=1, keepdims=True))
    alike = normal @ normal.T >= ALIKE
    repeated = compared[alike[alike.sum(axis=1).argmax()]]
    parted = np.flatnonzero(np.isin(owners, owners[repeated]) & large)
    others = len(set(things[things >= 0].tolist()) - set(owners[parted].tolist()))
    if len(repeated) < REPEATED or others + len(parted) > MAX_THINGS:
        return things
    middles, apart = (starts + ends) / 2, np.isin(things, owners[parted])
    away = np.linalg.norm(middles[bodies[apart], None] - middles[parted], axis=2)
    away[things[apart, None] != owners[parted]] = np.inf
    numbers = things.copy()
    numbers[apart] = things.max() + 1 + away.argmin(axis=1)
    return np.where(numbers < 0, numbers, np.searchsorted(np.unique(numbers[numbers >= 0]), numbers))


def _bodies(pieces: Pieces, things: Labels) -> tuple[Labels, Labels, Labels]:
    """Returns the body of each piece, (k,), and the first and the end row and column of each body, (b, 2).

    A body is the connected ink of one thing, with what lies at least half in its box; small ones go with the nearest.
    """
    ink = np.argwhere(pieces.labels >= 0)
    one_stroke = (pieces.strokes == pieces.strokes[:, None]) & (pieces.strokes >= 0)
    joined = ((pieces.gaps == 0) | one_stroke) & (things == things[:, None])
    _, first, bodies = np.unique(
        connected(np.array(np.nonzero(joined)), len(things)), return_index=True, return_inverse=True
    )
    owners, grown, of_ink = things[first], np.arange(len(first)), pieces.labels[*ink.T]
    while True:
        pause()
        starts, ends = np.full((len(owners), 2), SIDE), np.zeros((len(owners), 2), np.int64)
        np.minimum.at(starts, bodies[of_ink], ink)
        np.maximum.at(ends, bodies[of_ink], ink + 1)
        if not len(grown):
            return bodies, starts, ends
        # Only what has grown may have something inside that was not before.
        areas, both = (ends - starts).prod(axis=1), np.ones((len(grown), len(owners)), np.int64)
        for start, end in zip(starts.T, ends.T, strict=True):
            both *= np.maximum(np.minimum(end[grown, None], end) - np.maximum(start[grown, None], start), 0)
        inside = (2 * both >= np.minimum(areas, areas[grown, None])) & (owners == owners[grown, None])
        first, second = np.nonzero(inside)
        numbers, of, counts = np.unique(
            connected(np.stack([grown[first], second]), len(owners)), return_inverse=True, return_counts=True
        )
        bodies, owners, grown = of[bodies], owners[numbers], np.flatnonzero(counts > 1)


def _as_said(mean: NDArray[np.float64], first: Labels, second: Labels) -> NDArray[np.float64]:
    """Puts groups that were said to be one thing before all others, and keeps apart those said to be several."""
    if (first < 0).all():
        return mean
    return np.where((first >= 0) & (second >= 0), np.where(first == second, 1 + mean, -np.inf), mean)


def _distances(centres: Floats) -> Floats:
    down, across = (at[:, None] - at for at in centres.T)
    return np.asarray(np.sqrt(down * down + across * across))


def _succession(strokes: Labels) -> Floats:
    """Returns the log-odds, (k, k), that two pieces of these strokes, -1 if unknown, add because of their order."""
    known = strokes >= 0
    count = len(np.unique(strokes[known]))
    later = min(1, np.sqrt(FEW / max(1, count))) * abs(strokes[:, None] - strokes)
    evidence = min(1, 2 * (count - 1) / FEW) * NEXT - SINCE * np.log(np.maximum(1, later))
    return np.where(known[:, None] & known, evidence, 0).astype(np.float32)


def _cells(y: Labels, x: Labels, side: int) -> Labels:
    """Returns in which of ``side`` x ``side`` cells pixels lie."""
    return np.asarray(y * side // SIDE * side + x * side // SIDE)


def _join_strokes(y: Labels, x: Labels, stroke: Labels, told: Labels | None, side: int) -> Labels:
    """Gives pixels the first of the strokes, (n,), with a middle in the same cell that were told the same."""
    numbers, number = np.unique(stroke, return_inverse=True)
    middle_y, middle_x = (np.bincount(number, at).astype(np.int64) // np.bincount(number) for at in (y, x))
    said = np.full(len(numbers), -1) if told is None or not len(told) else told[numbers]
    of_group = np.where(numbers < 0, 0, said + 2) * side**2 + _cells(middle_y, middle_x, side)
    _, first, group = np.unique(of_group, return_index=True, return_inverse=True)
    return np.asarray(numbers[first][group][number])


def _most_inked(told: Labels, strokes: Labels) -> Labels:
    """Leaves of more than MAX_THINGS numbers of things those with most ink; strokes: of each pixel."""
    if len(np.unique(told[told >= 0])) <= MAX_THINGS:
        return told
    counts = np.bincount(np.maximum(0, told[strokes] + 1))
    counts[0] = 0
    return np.where(np.isin(told + 1, np.argsort(-counts, kind="stable")[:MAX_THINGS]), told, -1)


def _gaps(centres: Floats, components: Labels) -> Floats:
    """Returns the least distance of pieces of the components of each two pieces, (k, k); 0 within one component."""
    if not len(centres):
        return np.zeros((0, 0), np.float32)
    order = np.argsort(components, kind="stable")
    _, starts, numbers = np.unique(components[order], return_index=True, return_inverse=True)
    away = _distances(centres[order])
    least = np.minimum.reduceat(np.minimum.reduceat(away, starts, axis=0), starts, axis=1)
    np.fill_diagonal(least, 0)
    component = np.empty(len(order), np.int64)
    component[order] = numbers
    return np.asarray(least[component[:, None], component])


def _shapes(darkness: NDArray[np.uint8], labels: Labels, centres: Floats) -> Floats:
    """Draws each of k pieces alone, and all ink around it on a larger scale: (k, 2 _RASTER^2) in 0..1."""
    reach, middles = _RASTER * _OWN // 2, np.rint(centres).astype(int)
    alone = np.zeros((len(centres), _RASTER, _RASTER), np.float32)
    y, x = np.nonzero(labels >= 0)
    piece = labels[y, x]
    down, across = y - middles[piece, 0] + reach, x - middles[piece, 1] + reach
    inside = (down >= 0) & (down < 2 * reach) & (across >= 0) & (across < 2 * reach)
    np.add.at(alone, (piece[inside], down[inside] // _OWN, across[inside] // _OWN), np.float32(1 / _OWN**2))
    # A frame of paper, so that what is around the pieces at the edge can be seen, too.
    frame, cells = _RASTER * _AROUND, np.arange(_RASTER)
    framed = np.pad(darkness, frame).astype(np.float32) / 255
    rows = framed.reshape(len(framed) // _AROUND, _AROUND, -1, _AROUND).mean(axis=(1, 3))
    tops, lefts = ((middles + frame) // _AROUND - _RASTER // 2).T
    around = rows[tops[:, None, None] + cells[:, None], lefts[:, None, None] + cells]
    return np.concatenate([alone.reshape(-1, _RASTER**2), around.reshape(-1, _RASTER**2)], axis=1)

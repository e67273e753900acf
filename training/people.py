"""Draws people by a program, as people draw them: stick figures, outlines and busts, in natural poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points: TypeAlias = NDArray[np.float64]
_PAPER = 512
# Degrees from straight down, towards the right, each a range: lean of the body; upper arm and forearm of the left and
# of the right; thigh and shin of the left and of the right.
_POSES: dict[str, str] = {
    "standing": "-5 5, -45 -5, -35 10, 5 45, -10 35, -18 -3, -14 2, 3 18, -2 14",
    "walking": "-2 12, -50 -15, -30 0, 15 50, 30 75, -40 -12, -60 -15, 12 42, -10 20",
    "running": "8 30, -75 -35, -20 40, 30 80, 70 130, -55 -20, -110 -50, 35 80, -30 20",
    "sitting": "-12 10, -20 50, 30 95, 0 60, 40 100, 65 95, -15 20, 70 98, -12 22",
    "sitting on the ground": "-20 5, -50 20, -20 60, 10 60, 30 90, 75 130, 30 85, 75 130, 20 85",
    "riding": "-5 30, 20 75, 40 95, 25 80, 45 100, 20 65, -40 25, 25 70, -40 25",
    "arms up": "-6 6, -175 -110, -178 -120, 110 175, 120 178, -30 -3, -25 5, 3 30, -5 25",
    "waving": "-6 6, -40 -5, -30 10, 95 160, 120 185, -18 -3, -14 2, 3 18, -2 14",
    "arms out": "-6 6, -105 -70, -110 -70, 70 105, 70 110, -25 -5, -20 0, 5 25, 0 20",
    "hands on hips": "-5 5, -65 -35, 25 60, 35 65, -60 -25, -22 -5, -18 0, 5 22, 0 18",
    "reaching": "-3 20, 50 105, 65 110, 55 110, 70 115, -20 5, -20 5, 0 25, -5 20",
    "bending": "35 85, -10 60, -10 70, 0 70, 0 80, -15 10, -15 10, -5 20, -10 15",
    "crouching": "5 40, 10 80, 30 110, 20 90, 30 110, 40 85, -50 -5, 50 100, -60 -10",
    "balancing": "-25 35, -120 -60, -120 -50, 60 120, 50 120, -60 -20, -30 25, 20 60, -25 30",
    "kneeling": "-8 15, -30 20, -20 60, 0 50, 20 80, -10 30, -100 -80, -5 60, -100 -20",
}


@dataclass(frozen=True)
class _Figure:
    """The joints of a figure in units of its head's height, downwards positive; limbs are (3, 2), from the body out."""

    head: Points
    neck: Points
    hips: Points
    arms: tuple[Points, Points]
    legs: tuple[Points, Points]


def draw_person(chance: np.random.Generator) -> Image.Image:
    """Draws a person in black on white, (512, 512): pose, proportions, clothes, pen and what is left out are random."""
    figure = _pose(chance)
    stick = chance.random() < 0.35
    wide = 0.0 if stick else float(chance.uniform(0.14, 0.5))
    strokes = _Strokes(chance, float(chance.uniform(0.005, 0.035)))
    kind = chance.choice(
        ["line", "oval", "dress", "shirt"], p=(0.7, 0.1, 0.15, 0.05) if stick else (0, 0.2, 0.25, 0.55)
    )
    behind, front = (0, 1) if chance.random() < 0.5 else (1, 0)
    hands, feet = chance.random() < 0.5, chance.random() < 0.7
    strokes.limb(figure.arms[behind], 0.8 * wide, hand=hands)
    for leg in figure.legs:
        strokes.limb(leg, wide, foot=feet)
    _draw_body(strokes, figure, str(kind), wide, chance)
    strokes.limb(figure.arms[front], 0.8 * wide, hand=hands)
    _draw_head(strokes, figure, chance)
    if chance.random() < 0.12:
        hand = figure.arms[front][2]
        strokes.shape(hand + np.array([(-0.35, 0), (0.35, 0), (0.4, 0.7), (-0.4, 0.7)]))
    return strokes.render(_cut(figure, chance), lying=chance.random() < 0.04)


def _pose(chance: np.random.Generator) -> _Figure:
    """Chooses a pose and proportions: large heads, as in hasty drawings and of children, or natural ones."""
    ranges = _POSES[str(chance.choice([*_POSES]))].split(", ")
    lean, *limbs = (float(chance.uniform(*np.array(degrees.split(), float))) for degrees in ranges)
    tall = chance.uniform(0.5, 1.25)
    torso, arm, leg = tall * chance.uniform(1.5, 2.6), tall * chance.uniform(0.8, 1.4), tall * chance.uniform(0.9, 1.8)
    hips = np.zeros(2)
    neck = hips + torso * _direction(180 - lean)
    shoulders = neck + 0.1 * torso * _direction(-lean)
    across = _direction(90 - lean) * chance.choice([0, chance.uniform(0.1, 0.55)])
    head = neck + chance.uniform(0.45, 0.65) * _direction(180 - lean + chance.uniform(-20, 20))

    def limb(start: Points, angles: Sequence[float], length: float) -> Points:
        upper, lower = angles
        middle = start + length * _direction(upper)
        return np.stack([start, middle, middle + length * chance.uniform(0.8, 1.1) * _direction(lower)])

    sides = (-across, across)
    arms = [limb(shoulders + side, limbs[2 * n : 2 * n + 2], arm) for n, side in enumerate(sides)]
    legs = [limb(hips + 0.6 * side, limbs[4 + 2 * n : 6 + 2 * n], leg) for n, side in enumerate(sides)]
    return _Figure(head, neck, hips, (arms[0], arms[1]), (legs[0], legs[1]))


def _direction(degrees: float) -> Points:
    return np.array([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))], np.float64)


def _draw_body(strokes: _Strokes, figure: _Figure, kind: str, wide: float, chance: np.random.Generator) -> None:
    """Draws the body as a line, or as what clothes make of it."""
    neck, hips = figure.neck, figure.hips
    if kind == "line":
        strokes.line(np.stack([neck, hips]))
        return
    down = hips - neck
    across = np.array([down[1], -down[0]]) / max(float(np.hypot(*down)), 1e-6)
    top, bottom = chance.uniform(0.3, 0.75), chance.uniform(0.3, 0.65)
    if kind == "oval":
        turns = np.linspace(0, 2 * np.pi, 24)[:, None]
        strokes.shape((neck + hips) / 2 + np.cos(turns) * across * top + np.sin(turns) * down * 0.55)
    elif kind == "dress":
        hem, shoulder = hips + down * chance.uniform(0.1, 0.8), across * top / 2
        flare = across * chance.uniform(0.6, 1.4)
        strokes.shape(np.stack([neck - shoulder, neck + shoulder, hem + flare, hem - flare]))
    else:
        corners = [neck - across * top, neck + across * top, hips + across * bottom, hips - across * bottom]
        strokes.shape(np.stack(corners))
        if chance.random() < 0.3:
            strokes.line(np.stack([hips - across * bottom - 0.2 * down, hips + across * bottom - 0.2 * down]))


def _draw_head(strokes: _Strokes, figure: _Figure, chance: np.random.Generator) -> None:
    """Draws head, hair, hat and face; of a figure seen from behind or in haste, less of them."""
    head, turns = figure.head, np.linspace(0, 2 * np.pi, 28)
    wide, high = chance.uniform(0.36, 0.52), chance.uniform(0.45, 0.55)
    oval = head + np.stack([wide * np.sin(turns), high * np.cos(turns)], 1)
    hair = str(chance.choice(["none", "long", "short", "curls", "filled", "tail"], p=(0.4, 0.16, 0.16, 0.1, 0.1, 0.08)))
    top = oval[np.abs(turns - np.pi) < chance.uniform(1.1, 1.9)]
    if hair == "long":
        length = chance.uniform(0.5, 1.3)
        right = [(wide * 1.2, -0.2), (wide * 1.35, length)]
        left = [(-x, y) for x, y in reversed(right)]
        strokes.shape(head + np.array([*left, (0, -high * 1.2), *right]))
    strokes.shape(oval)
    if hair == "short":
        for x in np.linspace(-wide, wide, int(chance.integers(4, 12))):
            start = head + np.array([x, -high * np.sqrt(max(0.0, 1 - (x / wide) ** 2))])
            strokes.line(np.stack([start, start + chance.uniform(-0.15, 0.15, 2) + (0, chance.uniform(-0.2, 0.15))]))
    elif hair == "curls":
        for x, y in top[::2]:
            strokes.shape(np.stack([x + 0.13 * np.cos(turns), y + 0.13 * np.sin(turns)], 1))
    elif hair == "filled":
        strokes.shape(top, filled=True)
    elif hair == "tail":
        strokes.line(head + np.array([(wide, -0.2), (wide + 0.3, 0), (wide + 0.25, chance.uniform(0.3, 0.9))]))
    if chance.random() < 0.2:
        brim, crown = chance.uniform(0.55, 0.95), chance.uniform(0.25, 0.7)
        line = head[1] - high * chance.uniform(0.5, 0.8)
        box = [(-0.4, 0), (-0.35, -crown), (0.35, -crown), (0.4, 0)]
        strokes.shape(np.array([head[0], line]) + np.array(box))
        strokes.line(np.array([head[0], line]) + np.array([(-brim * (chance.random() < 0.7), 0), (brim, 0)]))
    if chance.random() < 0.6:
        look = chance.uniform(-0.1, 0.1)
        for x in (-0.16, 0.16):
            strokes.dot(head + np.array([x + look, -0.08]), float(chance.uniform(0.02, 0.07)))
        if chance.random() < 0.8:
            smile = chance.uniform(-0.08, 0.14)
            strokes.line(head + np.array([(-0.18 + look, 0.18), (look, 0.18 + smile), (0.18 + look, 0.18)]))
        if chance.random() < 0.3:
            strokes.line(head + np.array([(look, -0.05), (look + 0.07, 0.09), (look, 0.1)]))


def _cut(figure: _Figure, chance: np.random.Generator) -> float:
    """Chooses how far down a figure is drawn: some are busts, and some end at the waist or at the knees."""
    lowest = max(float(leg[:, 1].max()) for leg in figure.legs) + 0.5
    if chance.random() < 0.75:
        return lowest
    below = float(chance.choice([figure.neck[1] + 0.7, figure.hips[1], figure.hips[1] + 0.5, lowest * 0.6]))
    return below if below > figure.neck[1] + 0.4 else lowest


class _Strokes:
    """Collects what is drawn in order, what comes later in front, with the wobble of a hand."""

    def __init__(self, chance: np.random.Generator, wobble: float) -> None:
        self.chance, self.wobble = chance, wobble
        self.drawn: list[tuple[str, Points]] = []

    def line(self, points: Points) -> None:
        self.drawn.append(("line", self._wobbled(points)))

    def shape(self, points: Points, filled: bool = False) -> None:
        """Draws a closed outline that hides what is behind it, or is left a little open."""
        closed = self._wobbled(np.concatenate([points, points[:1]]))
        self.drawn.append(("filled" if filled else "shape", closed[: len(closed) - int(self.chance.integers(0, 2))]))

    def dot(self, middle: Points, radius: float) -> None:
        turns = np.linspace(0, 2 * np.pi, 8)
        self.drawn.append(("filled", middle + radius * np.stack([np.cos(turns), np.sin(turns)], 1)))

    def limb(self, joints: Points, wide: float, *, hand: bool = False, foot: bool = False) -> None:
        """Draws an arm or a leg, (3, 2): a line if it is not wide, else its outline."""
        end = joints[2]
        if not wide:
            self.line(joints)
        else:
            along = np.gradient(joints, axis=0)
            across = np.stack([along[:, 1], -along[:, 0]], 1) / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
            taper = wide * np.array([[0.55], [0.45], [0.35]])
            self.shape(np.concatenate([joints + across * taper, (joints - across * taper)[::-1]]))
        if hand and self.chance.random() < 0.5:
            self.shape(end + 0.16 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]))
        elif hand:
            for turn in self.chance.uniform(0, 2 * np.pi) + np.array([-0.5, 0, 0.5]):
                self.line(np.stack([end, end + 0.28 * np.array([np.cos(turn), np.sin(turn)])]))
        if foot:
            toe = 0.45 * np.sign(end[0] - joints[0, 0] + self.chance.normal(0, 0.2))
            self.line(np.stack([end, end + np.array([toe, 0.1])]))

    def _wobbled(self, points: Points) -> Points:
        """Adds points between, and moves all of them along a smooth random path."""
        steps = np.linspace(0, len(points) - 1, max(12, 6 * len(points)))
        dense = np.stack([np.interp(steps, np.arange(len(points)), axis) for axis in points.T], 1)
        turns = np.linspace(0, 1, 5 + len(points) // 4)
        moves = self.chance.normal(0, 2 * self.wobble, (len(turns), 2))
        along = np.linspace(0, 1, len(dense))
        wobbled: Points = dense + np.stack([np.interp(along, turns, axis) for axis in moves.T], 1)
        return wobbled

    def render(self, lowest: float, *, lying: bool) -> Image.Image:
        """Draws everything above ``lowest`` as large as the paper allows."""
        image, pen = Image.new("L", (_PAPER, _PAPER), 255), int(self.chance.integers(3, 13))
        points = np.concatenate([points for _, points in self.drawn])
        shown = points[points[:, 1] < lowest]
        low, high = shown.min(axis=0), np.minimum(shown.max(axis=0), (np.inf, lowest))
        scale = 0.88 * _PAPER / max(float((high - low).max()), 1e-6)
        draw = ImageDraw.Draw(image)
        for kind, path in self.drawn:
            placed = (path - (low + high) / 2) * scale + _PAPER / 2
            corners = [*map(tuple, placed.tolist())]
            if kind != "line":
                draw.polygon(corners, fill=0 if kind == "filled" else 255)
            draw.line(corners, fill=0, width=pen, joint="curve")
        bottom = int((lowest - (low + high)[1] / 2) * scale + _PAPER / 2)
        if bottom < _PAPER:
            image.paste(255, (0, max(0, bottom), _PAPER, _PAPER))
        return image.rotate(90) if lying else image

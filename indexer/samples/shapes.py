"""Outlines of things. Coordinates go from -1 to 1, x to the right and y downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

Point = tuple[float, float]
Outline = tuple[Point, ...]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One piece of a thing. Later parts lie on top of earlier ones.

    Attributes:
        outline: the corners of an area; or the points of a line, where ``width`` is positive.
        colour: RGB, 0 to 255. width: of the line, in the same units as coordinates; 0 for an area.
        round: whether it is shaded like a ball.
    """

    outline: Outline
    colour: Colour
    width: float = 0.0
    round: bool = False


# Draws one kind of thing, with details that chance picks.
Draw = Callable[[Random], list[Part]]


def ellipse(x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0) -> Outline:
    """An ellipse around (x, y); ``turn`` in degrees, clockwise."""
    return arc(x, y, rx, rx if ry is None else ry, 0, 360, turn)[:-1]


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float, turn: float = 0.0) -> Outline:
    """A piece of an ellipse, from angle ``start`` to ``end`` in degrees, clockwise from the right."""
    steps = max(6, int(abs(end - start) / 6))
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    flat = [(rx * math.cos(a), ry * math.sin(a)) for a in angles]
    return tuple((x + px * cos - py * sin, y + px * sin + py * cos) for px, py in flat)


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Outline:
    """A rectangle, its corners rounded by ``radius``."""
    if not radius:
        return ((left, top), (right, top), (right, bottom), (left, bottom))
    corners = ((right, top, 270), (right, bottom, 0), (left, bottom, 90), (left, top, 180))
    return tuple(
        point
        for x, y, angle in corners
        for point in arc(
            x - math.copysign(radius, x - (left + right) / 2),
            y - math.copysign(radius, y - (top + bottom) / 2),
            radius,
            radius,
            angle,
            angle + 90,
        )
    )


def bar(start: Point, end: Point, width: float) -> Outline:
    """A straight bar with square ends."""
    length = math.dist(start, end)
    dx, dy = (end[1] - start[1]) / length * width / 2, (start[0] - end[0]) / length * width / 2
    return (
        (start[0] + dx, start[1] + dy),
        (end[0] + dx, end[1] + dy),
        (end[0] - dx, end[1] - dy),
        (start[0] - dx, start[1] - dy),
    )


def ring_of(count: int, outer: float, inner: float, x: float = 0.0, y: float = 0.0, turn: float = -90.0) -> Outline:
    """A star of ``count`` points."""
    angles = [math.radians(turn + 180 * step / count) for step in range(2 * count)]
    radii = [outer if step % 2 == 0 else inner for step in range(2 * count)]
    return tuple((x + r * math.cos(a), y + r * math.sin(a)) for a, r in zip(angles, radii, strict=True))


def smooth(corners: Sequence[Point], closed: bool = True) -> Outline:
    """A curve through the corners (Catmull-Rom)."""
    count = len(corners)
    points: list[Point] = []
    for i in range(count if closed else count - 1):
        near = [corners[j % count] if closed else corners[min(max(j, 0), count - 1)] for j in range(i - 1, i + 3)]
        for step in range(8):
            t = step / 8
            weights = (
                -0.5 * t + t**2 - 0.5 * t**3,
                1 - 2.5 * t**2 + 1.5 * t**3,
                0.5 * t + 2 * t**2 - 1.5 * t**3,
                -0.5 * t**2 + 0.5 * t**3,
            )
            points.append(
                (
                    sum(w * p[0] for w, p in zip(weights, near, strict=True)),
                    sum(w * p[1] for w, p in zip(weights, near, strict=True)),
                )
            )
    return tuple(points) if closed else (*points, corners[-1])


def mirrored(outline: Sequence[Point]) -> Outline:
    """The outline mirrored at the vertical axis."""
    return tuple((-x, y) for x, y in outline)

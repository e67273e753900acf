"""Paints things as pictures, and draws them as sketches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from indexer.samples.palette import darker, lighter
from indexer.samples.shapes import Colour, Part, Point, smooth

SIZE = 320
# Pictures are painted larger by this factor and scaled down, because Pillow's polygons have hard edges.
_FINE = 2
_FULL = SIZE * _FINE

Pose = Callable[[Point], Point]


@dataclass(frozen=True)
class Style:
    """How a picture is painted.

    Attributes:
        lines: with lines around the areas. shaded: areas are darker on one side. shadow: the thing casts a shadow.
    """

    lines: bool
    shaded: bool
    shadow: bool


STYLES = (Style(False, True, True), Style(False, False, True), Style(True, False, False), Style(True, True, True))


def paint(parts: Sequence[Part], style: Style, chance: Random) -> Image.Image:
    """A coloured picture of a thing, RGB, SIZE x SIZE. ``chance`` picks its background and its pose."""
    canvas = _background(chance)
    pose = _pose(chance, turn=14, least=0.58, most=0.86, drift=0.14)
    placed = [(part, *_mask(part, pose)) for part in parts]
    if style.shadow:
        _cast_shadow(canvas, [(mask, box) for _, mask, box in placed], chance)
    for part, mask, (left, top, right, bottom) in placed:
        canvas.paste(_fill(part, style, (right - left, bottom - top)), (left, top), mask)
        if style.lines and not part.width:
            _line(canvas, [*map(pose, part.outline)], darker(part.colour, 0.35), 3 * _FINE, closed=True)
    canvas = canvas.filter(ImageFilter.GaussianBlur(_FINE * chance.uniform(0.2, 0.6)))
    return _grain(canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS), chance)


def sketch(parts: Sequence[Part], chance: Random) -> Image.Image:
    """A line drawing of a thing, black on white, RGB, SIZE x SIZE, with lines as unsteady as a hand's."""
    canvas = Image.new("RGB", (_FULL, _FULL), "white")
    steady = _pose(chance, turn=5, least=0.74, most=0.8, drift=0.03)
    shiver = _shiver(chance)
    for part in parts:
        points = [shiver(steady(point)) for point in part.outline]
        if part.width:
            thick = part.width > 0.05
            width = round(part.width * 0.42 * _FULL)
            # A thick line is drawn as its two edges.
            _line(canvas, points, (0, 0, 0), width if thick else 2 * _FINE)
            if thick:
                _line(canvas, points, (255, 255, 255), max(2, width - 4 * _FINE))
        else:
            ImageDraw.Draw(canvas).polygon(points, fill="white")
            _line(canvas, points, (0, 0, 0), 2 * _FINE + 1, closed=True)
    return canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _pose(chance: Random, *, turn: float, least: float, most: float, drift: float) -> Pose:
    """Maps the square of the outlines to pixels, a little turned, leaning, mirrored, squeezed and moved."""
    angle = math.radians(chance.uniform(-turn, turn))
    scale = chance.uniform(least, most) * _FULL / 2
    wide = scale * chance.uniform(0.92, 1.1) * chance.choice((-1, 1))
    lean = chance.uniform(-0.1, 0.1)
    x0, y0 = (_FULL / 2 * (1 + chance.uniform(-drift, drift)) for _ in range(2))
    cos, sin = math.cos(angle), math.sin(angle)

    def place(point: Point) -> Point:
        x, y = point[0] + lean * point[1], point[1]
        return x0 + wide * (x * cos - y * sin), y0 + scale * (x * sin + y * cos)

    return place


def _shiver(chance: Random) -> Pose:
    """Moves points by some pixels, in slow waves, as an unsteady hand does."""
    waves = [(chance.uniform(20, 60) * _FINE, chance.uniform(0, 6.3), chance.uniform(0.6, 1.3)) for _ in range(4)]

    def move(point: Point) -> Point:
        x, y = point
        dx = sum(size * math.sin(y / length + phase) for length, phase, size in waves)
        dy = sum(size * math.sin(x / length + 2 * phase) for length, phase, size in waves)
        return x + _FINE * dx, y + _FINE * dy

    return move


def _mask(part: Part, pose: Pose) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A mask (L) of the part, and the rectangle of the canvas that the mask covers: left, top, right, bottom."""
    points = [*map(pose, part.outline)]
    width = round(part.width * 0.42 * _FULL)
    edge = width // 2 + 2
    left, right = int(min(x for x, _ in points)) - edge, int(max(x for x, _ in points)) + edge + 1
    top, bottom = int(min(y for _, y in points)) - edge, int(max(y for _, y in points)) + edge + 1
    mask = Image.new("L", (right - left, bottom - top))
    moved = [(x - left, y - top) for x, y in points]
    if part.width:
        _line(mask, moved, 255, max(2, width))
    else:
        ImageDraw.Draw(mask).polygon(moved, fill=255)
    return mask, (left, top, right, bottom)


def _line(canvas: Image.Image, points: Sequence[Point], colour: Colour | int, width: int, closed: bool = False) -> None:
    """A line with round joints and ends."""
    draw = ImageDraw.Draw(canvas)
    around = [*points, points[0]] if closed else [*points]
    draw.line(around, fill=colour, width=width)
    radius = width / 2 - 0.5
    if radius > 1:
        for x, y in around:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _fill(part: Part, style: Style, size: tuple[int, int]) -> Image.Image:
    """The part's colour as an image; where it is shaded, with light from the upper left, and a round part as a ball."""
    if not style.shaded:
        return Image.new("RGB", size, part.colour)
    light, dark = lighter(part.colour, 0.35 if part.round else 0.16), darker(part.colour, 0.66)
    if not part.round:
        ramp = Image.linear_gradient("L").rotate(40, Image.Resampling.BILINEAR, fillcolor=128)
        return ImageOps.colorize(ramp.resize(size), light, dark)
    ball = Image.radial_gradient("L").resize((int(1.5 * size[0]) + 1, int(1.5 * size[1]) + 1))
    corner = (int(0.36 * size[0]), int(0.36 * size[1]))
    ball = ball.crop((*corner, corner[0] + size[0], corner[1] + size[1]))
    return ImageOps.colorize(ball, light, dark, mid=part.colour, midpoint=100)


def _cast_shadow(
    canvas: Image.Image, masks: Sequence[tuple[Image.Image, tuple[int, int, int, int]]], chance: Random
) -> None:
    whole = Image.new("L", canvas.size)
    dx, dy = round(chance.uniform(-0.05, 0.05) * _FULL), round(chance.uniform(0.02, 0.05) * _FULL)
    for mask, (left, top, _, _) in masks:
        whole.paste(mask.point(lambda value: value * 0.45), (left + dx, top + dy), mask)
    canvas.paste((24, 22, 30), (0, 0), whole.filter(ImageFilter.GaussianBlur(0.014 * _FULL)))


def _background(chance: Random) -> Image.Image:
    """A landscape, a wall, planks, lights out of focus, or a tiled floor."""
    kind = chance.choice((_landscape, _wall, _planks, _bokeh, _tiles))
    return kind(chance)


def _ramp(above: Colour, below: Colour, size: tuple[int, int] = (_FULL, _FULL)) -> Image.Image:
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), above, below)


def _landscape(chance: Random) -> Image.Image:
    sky = chance.choice(((120, 170, 220), (170, 200, 226), (236, 190, 150), (150, 160, 186)))
    ground = chance.choice(((120, 156, 90), (196, 176, 130), (110, 140, 160), (150, 150, 146)))
    canvas = _ramp(sky, lighter(sky, 0.6))
    horizon = chance.uniform(0.58, 0.74) * _FULL
    hills = [(x * _FULL / 6, horizon - chance.uniform(-0.03, 0.07) * _FULL) for x in range(-1, 8)]
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).polygon([*smooth(hills, closed=False), (_FULL, _FULL), (0, _FULL)], fill=255)
    canvas.paste(_ramp(lighter(ground, 0.25), darker(ground, 0.7)), (0, 0), mask)
    return canvas


def _wall(chance: Random) -> Image.Image:
    tint = _pastel(chance)
    canvas = _ramp(lighter(tint, 0.2), darker(tint, 0.78)).rotate(chance.choice((0, 90, 180, 270)))
    return Image.blend(canvas, _ramp(tint, lighter(tint, 0.4)), 0.3)


def _planks(chance: Random) -> Image.Image:
    wood = chance.choice(((178, 140, 100), (206, 184, 150), (126, 100, 80), (190, 190, 184)))
    canvas = Image.new("RGB", (_FULL, _FULL))
    count = chance.randint(4, 7)
    for i in range(count):
        top, bottom = i * _FULL // count, (i + 1) * _FULL // count
        tone = darker(wood, chance.uniform(0.86, 1.0))
        canvas.paste(_ramp(tone, darker(tone, 0.93), (_FULL, bottom - top)), (0, top))
        draw = ImageDraw.Draw(canvas)
        for _ in range(5):
            y, length = chance.uniform(top, bottom), chance.uniform(0.2, 0.7) * _FULL
            x = chance.uniform(-0.2, 0.9) * _FULL
            draw.line(((x, y), (x + length, y + chance.uniform(-6, 6))), fill=darker(tone, 0.9), width=3)
        draw.line(((0, top), (_FULL, top)), fill=darker(wood, 0.6), width=4)
    return canvas.rotate(90) if chance.random() < 0.4 else canvas


def _bokeh(chance: Random) -> Image.Image:
    tint = chance.choice(((70, 110, 70), (60, 80, 110), (130, 90, 80), (90, 100, 60)))
    canvas = _ramp(lighter(tint, 0.25), darker(tint, 0.7))
    for _ in range(26):
        x, y, r = chance.uniform(0, _FULL), chance.uniform(0, _FULL), chance.uniform(0.02, 0.09) * _FULL
        spot = Image.new("L", canvas.size)
        ImageDraw.Draw(spot).ellipse((x - r, y - r, x + r, y + r), fill=chance.randint(30, 110))
        canvas.paste(lighter(tint, chance.uniform(0.3, 0.8)), (0, 0), spot)
    return canvas.filter(ImageFilter.GaussianBlur(0.012 * _FULL))


def _tiles(chance: Random) -> Image.Image:
    tint = _pastel(chance)
    canvas = Image.new("RGB", (_FULL, _FULL), tint)
    draw = ImageDraw.Draw(canvas)
    step = _FULL // chance.randint(3, 7)
    for x in range(0, _FULL, step):
        for y in range(0, _FULL, step):
            tone = darker(tint, chance.uniform(0.9, 1.0) if (x // step + y // step) % 2 else chance.uniform(0.8, 0.88))
            draw.rectangle((x, y, x + step - 3, y + step - 3), fill=tone)
    shade = _ramp((255, 255, 255), (190, 190, 196)).rotate(chance.choice((0, 90, 180)))
    return ImageChops.multiply(canvas, shade)


def _grain(picture: Image.Image, chance: Random) -> Image.Image:
    """The picture with film grain. Its noise comes from ``chance``, because Pillow's own differs with every call."""
    noise = Image.frombytes("L", (SIZE, SIZE), chance.randbytes(SIZE * SIZE)).filter(ImageFilter.GaussianBlur(0.6))
    return Image.blend(picture, noise.convert("RGB"), chance.uniform(0.02, 0.07))


def _pastel(chance: Random) -> Colour:
    return (chance.randint(150, 236), chance.randint(150, 230), chance.randint(146, 230))

"""Paints things as pictures, and draws them as sketches."""

import math
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from indexer.samples.things import Colour, Outline, Part, Point, smooth

SIZE = 320
# Pictures are painted larger by this factor and scaled down, because Pillow's polygons have hard edges.
_FINE = 2
_FULL = SIZE * _FINE
# Each style says whether areas have lines around them, are darker on one side, and cast a shadow.
STYLES = ((False, True, True), (False, False, True), (True, False, False), (True, True, True))
_SKIES = ((120, 170, 220), (170, 200, 226), (236, 190, 150), (150, 160, 186))
_GROUNDS = ((120, 156, 90), (196, 176, 130), (110, 140, 160), (150, 150, 146))
_WOODS = ((178, 140, 100), (206, 184, 150), (126, 100, 80), (190, 190, 184))


def paint(parts: Sequence[Part], style: tuple[bool, bool, bool], chance: Random) -> Image.Image:
    """Paints a coloured picture of a thing, RGB, SIZE x SIZE. ``chance`` picks its background and its pose."""
    lines, shaded, shadow = style
    canvas = chance.choice((_landscape, _wall, _planks))(chance)
    pose = _pose(chance, turn=14, least=0.58, most=0.86, drift=0.14, shiver=2.5)
    masks = [_mask(part, pose) for part in parts]
    if shadow:
        dark = Image.new("L", canvas.size)
        for mask in masks:
            dark.paste(110, (round(chance.uniform(-8, 8)), round(chance.uniform(12, 30))), mask)
        canvas.paste((24, 22, 30), (0, 0), dark.filter(ImageFilter.GaussianBlur(0.014 * _FULL)))
    for part, mask in zip(parts, masks, strict=True):
        if (box := mask.getbbox()) is not None:
            canvas.paste(_fill(part, (box[2] - box[0], box[3] - box[1]), shaded), box[:2], mask.crop(box))
        if lines and not part.width:
            _line(canvas, pose(part.outline), _mixed(part.colour, 0.65, 0), 3 * _FINE, closed=True)
    canvas = canvas.filter(ImageFilter.GaussianBlur(_FINE * chance.uniform(0.2, 0.6)))
    # The noise of film grain comes from ``chance``, because Pillow's own differs with every call.
    noise = Image.frombytes("L", (SIZE, SIZE), chance.randbytes(SIZE * SIZE)).filter(ImageFilter.GaussianBlur(0.6))
    picture = canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return Image.blend(picture, noise.convert("RGB"), chance.uniform(0.02, 0.07))


def sketch(parts: Sequence[Part], chance: Random) -> Image.Image:
    """Draws a thing in lines, black on white, RGB, SIZE x SIZE. The lines are as unsteady as a hand's."""
    canvas = Image.new("RGB", (_FULL, _FULL), "white")
    pose = _pose(chance, turn=5, least=0.74, most=0.8, drift=0.03, shiver=1)
    for part in parts:
        points = pose(part.outline)
        width = round(part.width * 0.42 * _FULL)
        if not part.width:
            ImageDraw.Draw(canvas).polygon(points, fill="white")
            _line(canvas, points, (0, 0, 0), 2 * _FINE + 1, closed=True)
        elif part.width <= 0.05:
            _line(canvas, points, (0, 0, 0), 2 * _FINE)
        else:
            # A thick line is drawn as its two edges.
            _line(canvas, points, (0, 0, 0), width)
            _line(canvas, points, (255, 255, 255), max(2, width - 4 * _FINE))
    return canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _pose(
    chance: Random, *, turn: float, least: float, most: float, drift: float, shiver: float
) -> Callable[[Outline], list[Point]]:
    """Returns a map from outlines to pixels that turns, leans, mirrors, squeezes, moves and bends them a little."""
    angle = math.radians(chance.uniform(-turn, turn))
    scale = chance.uniform(least, most) * _FULL / 2
    wide = scale * chance.uniform(0.92, 1.1) * chance.choice((-1, 1))
    lean = chance.uniform(-0.1, 0.1)
    x0, y0 = (_FULL / 2 * (1 + chance.uniform(-drift, drift)) for _ in range(2))
    cos, sin = math.cos(angle), math.sin(angle)
    waves = [(chance.uniform(20, 60) * _FINE, chance.uniform(0, 6.3), chance.uniform(0.6, 1.3)) for _ in range(4)]

    def place(point: Point) -> Point:
        x, y = point[0] + lean * point[1], point[1]
        x, y = x0 + wide * (x * cos - y * sin), y0 + scale * (x * sin + y * cos)
        dx = sum(size * math.sin(y / length / shiver + phase) for length, phase, size in waves)
        dy = sum(size * math.sin(x / length / shiver + 2 * phase) for length, phase, size in waves)
        return x + shiver * _FINE * dx, y + shiver * _FINE * dy

    return lambda outline: [place(point) for point in outline]


def _mask(part: Part, pose: Callable[[Outline], list[Point]]) -> Image.Image:
    """Makes a mask (L) that is 255 where the part covers the canvas."""
    mask, points = Image.new("L", (_FULL, _FULL)), pose(part.outline)
    if part.width:
        _line(mask, points, 255, max(2, round(part.width * 0.42 * _FULL)))
    else:
        ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask


def _line(canvas: Image.Image, points: Sequence[Point], colour: Colour | int, width: int, closed: bool = False) -> None:
    """Draws a line with round joints and ends."""
    pen = ImageDraw.Draw(canvas)
    around = [*points, points[0]] if closed else [*points]
    pen.line(around, fill=colour, width=width)
    if (radius := width / 2 - 0.5) > 1:
        for x, y in around:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _fill(part: Part, size: tuple[int, int], shaded: bool) -> Image.Image:
    """Paints a box with the colour of a part; shaded, it has light from the upper left, and a round part as a ball."""
    if not shaded:
        return Image.new("RGB", size, part.colour)
    light, dark = _mixed(part.colour, 0.35 if part.round else 0.16, 255), _mixed(part.colour, 0.34, 0)
    if part.round:
        ball = Image.radial_gradient("L").resize((int(1.5 * size[0]) + 1, int(1.5 * size[1]) + 1))
        left, top = int(0.36 * size[0]), int(0.36 * size[1])
        ball = ball.crop((left, top, left + size[0], top + size[1]))
        return ImageOps.colorize(ball, light, dark, mid=part.colour, midpoint=100)
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), light, dark)


def _mixed(colour: Colour, amount: float, other: int) -> Colour:
    """Mixes a colour with white (255) or black (0). With ``amount`` 1 only white or black is left."""
    red, green, blue = (round(c + (other - c) * amount) for c in colour)
    return red, green, blue


def _ramp(above: Colour, below: Colour, size: tuple[int, int] = (_FULL, _FULL)) -> Image.Image:
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), above, below)


def _landscape(chance: Random) -> Image.Image:
    sky, ground = chance.choice(_SKIES), chance.choice(_GROUNDS)
    canvas, mask = _ramp(sky, _mixed(sky, 0.6, 255)), Image.new("L", (_FULL, _FULL))
    horizon = chance.uniform(0.58, 0.74) * _FULL
    hills = [(x * _FULL / 6, horizon - chance.uniform(-0.03, 0.07) * _FULL) for x in range(-1, 8)]
    ImageDraw.Draw(mask).polygon([*smooth(hills, closed=False), (_FULL, _FULL), (0, _FULL)], fill=255)
    canvas.paste(_ramp(_mixed(ground, 0.25, 255), _mixed(ground, 0.3, 0)), (0, 0), mask)
    return canvas


def _wall(chance: Random) -> Image.Image:
    tint = (chance.randint(150, 236), chance.randint(150, 230), chance.randint(146, 230))
    return _ramp(_mixed(tint, 0.3, 255), _mixed(tint, 0.2, 0)).rotate(chance.choice((0, 90, 180, 270)))


def _planks(chance: Random) -> Image.Image:
    wood, count = chance.choice(_WOODS), chance.randint(4, 7)
    canvas = Image.new("RGB", (_FULL, _FULL))
    for i in range(count):
        top, bottom = i * _FULL // count, (i + 1) * _FULL // count
        tone = _mixed(wood, chance.uniform(0, 0.14), 0)
        canvas.paste(_ramp(tone, _mixed(tone, 0.07, 0), (_FULL, bottom - top)), (0, top))
        ImageDraw.Draw(canvas).line(((0, top), (_FULL, top)), fill=_mixed(wood, 0.4, 0), width=4)
    return canvas.rotate(90) if chance.random() < 0.4 else canvas

"""Draws a sample gallery and sketches from a table of shapes with colours, and adds sample photos of other packages."""

import importlib.util
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from sketch_search.indexer.errors import BadInvocation

Point = tuple[float, float]
Outline = tuple[Point, ...]
Colour = tuple[int, int, int]

SIZE = 320
# Pictures are painted larger by this factor and scaled down, because Pillow's polygons have hard edges.
_FINE = 2
_FULL = SIZE * _FINE
# Each style says whether areas have lines around them, are darker on one side, and cast a shadow.
STYLES = ((False, True, True), (False, False, True), (True, False, False), (True, True, True))
_SKIES = ((120, 170, 220), (170, 200, 226), (236, 190, 150), (150, 160, 186))
_GROUNDS = ((120, 156, 90), (196, 176, 130), (110, 140, 160), (150, 150, 146))
_WOODS = ((178, 140, 100), (206, 184, 150), (126, 100, 80), (190, 190, 184))

# fmt: off
_COLOURS: dict[str, Colour] = {
    "red": (204, 48, 44), "orange": (232, 126, 38), "yellow": (244, 200, 60), "green": (74, 150, 70),
    "blue": (52, 104, 190), "teal": (44, 150, 150), "purple": (126, 84, 170), "pink": (232, 130, 160),
    "brown": (122, 80, 48), "tan": (206, 164, 112), "white": (244, 242, 236), "grey": (140, 144, 150),
    "dark": (46, 46, 54), "glass": (186, 220, 236), "lime": (150, 180, 60), "brick": (196, 120, 100),
}
# fmt: on
# Each thing of things.txt has a line of the colours from which A and B are chosen at random. Its parts follow from back
# to front: a shape, a colour, and numbers from -100 to 100, x to the right and y downwards. An `area` has corners, a
# `blob` has points of the curve around it, a `disc` has x, y and two radii; `line`, `curve` and `ring` are the same as
# lines, and begin with a width. `half` takes the points for the right half of a blob, `both` adds the mirrored part,
# and `ball` shades a part like a ball.
_TABLE = Path(__file__).with_name("things.txt").read_text(encoding="ascii")
#: The lines of each thing in the table, by name.
THINGS = {block.partition(":")[0]: block.splitlines() for block in re.split(r"\n(?=\w)", _TABLE.strip())}


@dataclass(frozen=True)
class Part:
    """A piece of a thing, -1 to 1, on top of earlier ones: an area, or a line of ``width``; round: like a ball."""

    outline: Outline
    colour: Colour
    width: float = 0.0
    round: bool = False


def draw(lines: Sequence[str], chance: Random) -> list[Part]:
    """Makes the parts of a thing from its lines of the table, in random colours."""
    of_a, of_b = (names.split() for names in lines[0].partition(": ")[2].split("; "))
    picked = {"A": chance.choice(of_a)}
    picked["B"] = chance.choice([name for name in of_b if name != picked["A"]])
    parts: list[Part] = []
    for shape, colour, *words in map(str.split, " | ".join(lines[1:]).split("|")):
        numbers = [float(word) / 100 for word in words if not word.isalpha()]
        width = numbers.pop(0) if shape in ("line", "curve", "ring") else 0.0
        points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        if "half" in words:
            points += _mirror(points[-2:0:-1])
        if shape in ("disc", "ring"):
            turns = [math.tau * step / 60 for step in range(60 + (shape == "ring"))]
            (x, y), (rx, ry) = points
            points = tuple((x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns)
        elif shape in ("blob", "curve"):
            points = smooth(points, closed=shape == "blob")
        part = Part(points, _COLOURS[picked.get(colour, colour)], width, "ball" in words)
        parts += [part, replace(part, outline=_mirror(points))] if "both" in words else [part]
    return parts


def smooth(corners: Sequence[Point], closed: bool = True) -> Outline:
    """Computes a curve through the corners (Catmull-Rom)."""
    count = len(corners)
    points: list[Point] = []
    for i in range(count if closed else count - 1):
        near = [corners[j % count if closed else min(max(j, 0), count - 1)] for j in range(i - 1, i + 3)]
        for t in (step / 8 for step in range(8)):
            weights = (2 * t**2 - t**3 - t, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            x, y = (sum(w * point[axis] for w, point in zip(weights, near, strict=True)) / 2 for axis in (0, 1))
            points.append((x, y))
    return tuple(points) if closed else (*points, corners[-1])


def _mirror(outline: Sequence[Point]) -> Outline:
    return tuple((-x, y) for x, y in outline)


def paint(things: Sequence[Sequence[Part]], style: tuple[bool, bool, bool], chance: Random) -> Image.Image:
    """Paints parts of things side by side, RGB, SIZE x SIZE. ``chance`` picks background and poses."""
    lines, shaded, shadow = style
    canvas = chance.choice((_landscape, _wall, _planks))(chance)
    posed: list[tuple[Part, Callable[[Outline], list[Point]]]] = []
    for number, parts in enumerate(things):
        across = (2 * number + 1) / len(things) - 1
        pose = _pose(chance, 14, (0.58, 0.86), 0.14, 2.5, across, 1 / len(things))
        posed += [(part, pose) for part in parts]
    masks = [_mask(part, pose) for part, pose in posed]
    if shadow:
        dark = Image.new("L", canvas.size)
        for mask in masks:
            dark.paste(110, (round(chance.uniform(-8, 8)), round(chance.uniform(12, 30))), mask)
        canvas.paste((24, 22, 30), (0, 0), dark.filter(ImageFilter.GaussianBlur(0.014 * _FULL)))
    for (part, pose), mask in zip(posed, masks, strict=True):
        if (box := mask.getbbox()) is not None:
            canvas.paste(_fill(part, (box[2] - box[0], box[3] - box[1]), shaded), box[:2], mask.crop(box))
        if lines and not part.width:
            _line(canvas, pose(part.outline), _mix(part.colour, 0.65, 0), 3 * _FINE, closed=True)
    canvas = canvas.filter(ImageFilter.GaussianBlur(_FINE * chance.uniform(0.2, 0.6)))
    # The noise of film grain comes from ``chance``, because Pillow's own differs with every call.
    noise = Image.frombytes("L", (SIZE, SIZE), chance.randbytes(SIZE * SIZE)).filter(ImageFilter.GaussianBlur(0.6))
    picture = canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return Image.blend(picture, noise.convert("RGB"), chance.uniform(0.02, 0.07))


def sketch(parts: Sequence[Part], chance: Random) -> Image.Image:
    """Draws a thing in lines, black on white, RGB, SIZE x SIZE. The lines are as unsteady as a hand's."""
    canvas = Image.new("RGB", (_FULL, _FULL), "white")
    pose = _pose(chance, 5, (0.74, 0.8), 0.03, 1, 0, 1)
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
    chance: Random, turn: float, sizes: tuple[float, float], drift: float, shiver: float, across: float, share: float
) -> Callable[[Outline], list[Point]]:
    """Maps outlines to pixels, turned and bent a little; across: the middle, from -1 to 1; share: of the picture."""
    angle = math.radians(chance.uniform(-turn, turn))
    scale = chance.uniform(*sizes) * share * _FULL / 2
    wide = scale * chance.uniform(0.92, 1.1) * chance.choice((-1, 1))
    lean = chance.uniform(-0.1, 0.1)
    x0, y0 = (_FULL / 2 * (1 + middle + chance.uniform(-drift, drift) * share) for middle in (across, 0))
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
    mask, points = Image.new("L", (_FULL, _FULL)), pose(part.outline)
    if part.width:
        _line(mask, points, 255, max(2, round(part.width * 0.42 * _FULL)))
    else:
        ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask


def _line(canvas: Image.Image, points: Sequence[Point], colour: Colour | int, width: int, closed: bool = False) -> None:
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
    light, dark = _mix(part.colour, 0.35 if part.round else 0.16, 255), _mix(part.colour, 0.34, 0)
    if part.round:
        ball = Image.radial_gradient("L").resize((int(1.5 * size[0]) + 1, int(1.5 * size[1]) + 1))
        left, top = int(0.36 * size[0]), int(0.36 * size[1])
        ball = ball.crop((left, top, left + size[0], top + size[1]))
        return ImageOps.colorize(ball, light, dark, mid=part.colour, midpoint=100)
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), light, dark)


def _mix(colour: Colour, amount: float, other: int) -> Colour:
    """Mixes a colour with white (255) or black (0). With ``amount`` 1 only white or black is left."""
    red, green, blue = (round(c + (other - c) * amount) for c in colour)
    return red, green, blue


def _ramp(above: Colour, below: Colour, size: tuple[int, int] = (_FULL, _FULL)) -> Image.Image:
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), above, below)


def _landscape(chance: Random) -> Image.Image:
    sky, ground = chance.choice(_SKIES), chance.choice(_GROUNDS)
    canvas, mask = _ramp(sky, _mix(sky, 0.6, 255)), Image.new("L", (_FULL, _FULL))
    horizon = chance.uniform(0.58, 0.74) * _FULL
    hills = [(x * _FULL / 6, horizon - chance.uniform(-0.03, 0.07) * _FULL) for x in range(-1, 8)]
    ImageDraw.Draw(mask).polygon([*smooth(hills, closed=False), (_FULL, _FULL), (0, _FULL)], fill=255)
    canvas.paste(_ramp(_mix(ground, 0.25, 255), _mix(ground, 0.3, 0)), (0, 0), mask)
    return canvas


def _wall(chance: Random) -> Image.Image:
    tint = (chance.randint(150, 236), chance.randint(150, 230), chance.randint(146, 230))
    return _ramp(_mix(tint, 0.3, 255), _mix(tint, 0.2, 0)).rotate(chance.choice((0, 90, 180, 270)))


def _planks(chance: Random) -> Image.Image:
    wood, count = chance.choice(_WOODS), chance.randint(4, 7)
    canvas = Image.new("RGB", (_FULL, _FULL))
    for i in range(count):
        top, bottom = i * _FULL // count, (i + 1) * _FULL // count
        tone = _mix(wood, chance.uniform(0, 0.14), 0)
        canvas.paste(_ramp(tone, _mix(tone, 0.07, 0), (_FULL, bottom - top)), (0, top))
        ImageDraw.Draw(canvas).line(((0, top), (_FULL, top)), fill=_mix(wood, 0.4, 0), width=4)
    return canvas.rotate(90) if chance.random() < 0.4 else canvas


# The number of pictures of each thing: one in each style.
EACH = len(STYLES)
# Photos included in packages, by the name of the package: its module, the folder, and the files in it.
_BORROWED = {
    "scikit-learn": ("sklearn", "datasets/images", "china.jpg flower.jpg"),
    "scikit-image": (
        "skimage",
        "data",
        "astronaut.png camera.png chelsea.png coffee.png coins.png moon.png motorcycle_left.png rocket.jpg",
    ),
}
# Pictures of two things, the first on the left.
SCENES = tuple(
    pair
    for left, right in (("bicycle", "tree"), ("car", "house"), ("cat", "umbrella"), ("mushroom", "butterfly"))
    for pair in ((left, right), (right, left))
)
SKETCHED = tuple(name for name in THINGS if name not in ("duck", "flower", "star", "tree"))


def write_samples(folder: Path) -> int:
    """Writes ``folder/photos`` and ``folder/sketches``, always the same, with photos of other packages.

    Returns the number of these. Raises BadInvocation if one of the folders exists.
    """
    photos, sketches = folder / "photos", folder / "sketches"
    for target in (photos, sketches):
        if target.exists():
            raise BadInvocation(f"{target} already exists; name another folder, or delete it.")
    working = folder / ".samples-partial"
    try:
        shutil.rmtree(working, ignore_errors=True)
        for name in THINGS:
            (working / "photos" / name).mkdir(parents=True)
            for number in range(1, EACH + 1):
                draw_photo(name, number).save(working / "photos" / name / f"{name} {number}.jpg", quality=90)
        (working / "photos" / "scenes").mkdir()
        for left, right in SCENES:
            for number in range(1, EACH + 1):
                file = working / "photos" / "scenes" / f"{left} and {right} {number}.jpg"
                draw_photo(f"{left} {right}", number).save(file, quality=90)
        (working / "sketches").mkdir()
        for name in SKETCHED:
            draw_sketch(name).save(working / "sketches" / f"{name}.png")
        copied = _copy_photos(working / "photos")
        # A folder appears only when it is complete.
        os.replace(working / "photos", photos)
        os.replace(working / "sketches", sketches)
        working.rmdir()
    except OSError as error:
        raise BadInvocation(f"{folder} cannot be written: {error.strerror}; name another folder.") from error
    return copied


def draw_sketch(name: str) -> Image.Image:
    """Draws the sketch of one of THINGS, RGB, black on white. It is always the same."""
    chance = Random(f"{name} as a sketch")
    return sketch(draw(THINGS[name], chance), chance)


def draw_photo(names: str, number: int) -> Image.Image:
    """Paints a picture, RGB, of THINGS named from the left with spaces between. The same number, from 1, repeats it."""
    chance = Random(f"{names} {number}")
    things = [draw(THINGS[name], chance) for name in names.split()]
    return paint(things, STYLES[(number - 1) % len(STYLES)], chance)


def _copy_photos(folder: Path) -> int:
    """Copies the photos included in other packages, without importing these, which would take a second."""
    copied = 0
    for package, (name, inside, photos) in _BORROWED.items():
        spec = importlib.util.find_spec(name)
        places = spec.submodule_search_locations or () if spec is not None else ()
        for source in (Path(place, inside, photo) for place in places for photo in photos.split()):
            if source.is_file():
                (folder / package).mkdir(exist_ok=True)
                shutil.copyfile(source, folder / package / source.name)
                copied += 1
    return copied

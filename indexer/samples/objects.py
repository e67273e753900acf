"""Things that people make. Each drawing of a thing differs a little."""

from __future__ import annotations

import math
from random import Random

from indexer.samples.palette import (
    BLUE,
    BRIGHT,
    BROWN,
    DARK,
    GLASS,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    TAN,
    TEAL,
    WHITE,
    YELLOW,
)
from indexer.samples.shapes import Draw, Outline, Part, arc, bar, box, ellipse, mirrored, ring_of, smooth


def _car(chance: Random) -> list[Part]:
    paint = chance.choice(BRIGHT)
    rear = chance.choice((-0.62, -0.78))
    body = ((-0.95, 0.3), (-0.93, 0.02), (-0.55, -0.06), (0.5, -0.06), (0.9, 0.06), (0.96, 0.3))
    parts = [
        Part(((rear, -0.03), (rear + 0.14, -0.42), (0.2, -0.42), (0.52, -0.03)), paint),
        Part(((rear + 0.12, -0.06), (rear + 0.22, -0.34), (-0.22, -0.34), (-0.22, -0.06)), GLASS),
        Part(((-0.14, -0.06), (-0.14, -0.34), (0.16, -0.34), (0.38, -0.06)), GLASS),
        Part(body, paint),
        Part(ellipse(0.88, 0.12, 0.06, 0.08), YELLOW),
        Part(box(-0.12, 0.04, 0.02, 0.08), DARK),
    ]
    for x in (-0.55, 0.56):
        parts += [Part(ellipse(x, 0.32, 0.22), DARK), Part(ellipse(x, 0.32, 0.11), (190, 194, 198))]
    return parts


def _house(chance: Random) -> list[Part]:
    wall = chance.choice((WHITE, TAN, (226, 196, 150), (196, 120, 100), (176, 196, 206)))
    tall = chance.uniform(-0.22, -0.05)
    door = chance.choice((-0.2, 0.0))
    return [
        Part(box(0.3, -0.8, 0.5, tall), (150, 90, 76)),
        Part(box(-0.66, tall, 0.66, 0.75), wall),
        Part(((-0.86, tall + 0.03), (0, -0.86), (0.86, tall + 0.03)), chance.choice((RED, BROWN, GREY, (90, 60, 60)))),
        Part(box(door - 0.14, 0.28, door + 0.14, 0.75), chance.choice((BROWN, BLUE, GREEN))),
        Part(box(0.28, 0.12, 0.54, 0.4), GLASS),
        Part(box(0.395, 0.12, 0.425, 0.4), WHITE),
        Part(box(-0.56, 0.12, -0.38, 0.4), GLASS),
    ]


def _cup(chance: Random) -> list[Part]:
    glaze = chance.choice((*BRIGHT, WHITE))
    foot = chance.uniform(0.34, 0.48)
    return [
        Part(arc(0.5, 0.02, 0.34, 0.32, -100, 100), glaze, width=0.13),
        Part(((-0.55, -0.45), (0.55, -0.45), (foot, 0.62), (-foot, 0.62)), glaze),
        Part(ellipse(0, 0.62, foot, 0.08), glaze),
        Part(ellipse(0, -0.45, 0.55, 0.14), WHITE),
        Part(ellipse(0, -0.42, 0.47, 0.1), chance.choice((BROWN, (170, 90, 40), (90, 54, 34)))),
    ]


def _umbrella(chance: Random) -> list[Part]:
    cloth, other = chance.sample(BRIGHT, 2)

    def rib(x: float) -> Outline:
        angles = [math.radians(9 * step) for step in range(11)]
        return tuple((x * math.cos(a), 0.05 - 0.77 * math.sin(a)) for a in angles)

    parts = [
        Part(((0.0, 0.0), (0.0, 0.66), *arc(0.13, 0.66, 0.13, 0.16, 180, 0)), DARK, width=0.07),
        Part(((0, -0.7), (0, -0.88)), DARK, width=0.05),
    ]
    for i, x in enumerate((-0.9, -0.45, 0.0, 0.45)):
        rim = arc(x + 0.225, 0.05, 0.225, 0.1, 0, -180)
        parts.append(Part((*rib(x), *rib(x + 0.45)[::-1], *rim), cloth if i % 2 else other))
    return parts


def _sailboat(chance: Random) -> list[Part]:
    sail = chance.choice((WHITE, WHITE, YELLOW, RED, (240, 220, 190)))
    return [
        Part(box(-0.04, -0.92, 0.02, 0.42), BROWN),
        Part(smooth(((0.06, -0.86), (0.36, -0.3), (0.66, 0.26), (0.3, 0.28), (0.06, 0.26)), closed=False), sail),
        Part(((-0.08, -0.62), (-0.08, 0.26), (-0.62, 0.26)), chance.choice((sail, RED, BLUE))),
        Part(((-0.86, 0.4), (0.9, 0.36), (0.62, 0.74), (-0.6, 0.74)), chance.choice((BROWN, RED, BLUE, DARK, WHITE))),
    ]


def _bicycle(chance: Random) -> list[Part]:
    frame = chance.choice(BRIGHT)
    wheels = [Part((*ellipse(x, 0.3, 0.38), (x + 0.38, 0.3)), DARK, width=0.06) for x in (-0.54, 0.56)]
    spokes = []
    for x in (-0.54, 0.56):
        for step in range(4):
            dx, dy = 0.35 * math.cos(step * math.pi / 4 + 0.3), 0.35 * math.sin(step * math.pi / 4 + 0.3)
            spokes.append(Part(((x - dx, 0.3 - dy), (x + dx, 0.3 + dy)), GREY, width=0.015))
    tubes = (
        ((-0.54, 0.3), (-0.02, 0.3), (0.4, -0.32), (-0.2, -0.28), (-0.54, 0.3)),
        ((-0.02, 0.3), (-0.25, -0.42)),
        ((0.56, 0.3), (0.36, -0.5), (0.5, -0.58)),
    )
    return [
        *spokes,
        *wheels,
        *[Part(tube, frame, width=0.055) for tube in tubes],
        Part(bar((-0.42, -0.45), (-0.1, -0.45), 0.09), DARK),
        Part(ellipse(-0.02, 0.3, 0.09), GREY),
    ]


def _chair(chance: Random) -> list[Part]:
    wood = chance.choice((BROWN, TAN, RED, TEAL, DARK))
    cloth = chance.choice((wood, wood, BLUE, GREEN))
    parts = [Part(bar(a, b, 0.09), wood) for a, b in (((-0.3, 0.1), (-0.3, 0.78)), ((0.58, 0.1), (0.58, 0.72)))]
    parts += [Part(bar((-0.46, -0.9), (-0.46, 0.92), 0.1), wood), Part(bar((0.36, 0.2), (0.36, 0.92), 0.1), wood)]
    parts += [Part(bar((-0.24, -0.95), (-0.24, 0.06), 0.08), wood)]
    parts += [Part(((-0.46, y), (-0.24, y - 0.05), (-0.24, y + 0.1), (-0.46, y + 0.16)), wood) for y in (-0.8, -0.5)]
    return [
        *parts,
        Part(((-0.5, 0.22), (-0.26, 0.02), (0.64, 0.02), (0.44, 0.22)), cloth),
        Part(box(-0.5, 0.22, 0.44, 0.31), wood),
    ]


def _clock(chance: Random) -> list[Part]:
    rim = chance.choice((*BRIGHT, DARK, BROWN))
    parts = [Part(ellipse(0, 0, 0.86), rim), Part(ellipse(0, 0, 0.7), WHITE)]
    for hour in range(12):
        dx, dy = math.cos(hour * math.pi / 6), math.sin(hour * math.pi / 6)
        parts.append(Part(((0.54 * dx, 0.54 * dy), (0.63 * dx, 0.63 * dy)), DARK, width=0.05))
    for length, width in ((0.34, 0.08), (0.5, 0.05)):
        a = chance.uniform(0, 2 * math.pi)
        parts.append(Part(((0, 0), (length * math.cos(a), length * math.sin(a))), DARK, width=width))
    return [*parts, Part(ellipse(0, 0, 0.06), rim)]


def _key(chance: Random) -> list[Part]:
    metal = chance.choice(((206, 164, 60), (160, 164, 172), (176, 110, 60)))
    bow = ellipse(-0.58, 0, 0.34) if chance.random() < 0.6 else ring_of(6, 0.38, 0.33, -0.58)
    teeth = [Part(box(x, 0.05, x + 0.12, deep), metal) for x, deep in ((0.46, 0.3), (0.66, 0.22), (0.82, 0.34))]
    return [
        *teeth,
        Part(box(-0.3, -0.08, 0.95, 0.08), metal),
        Part((*bow, bow[0]), metal, width=0.15),
    ]


def _guitar(chance: Random) -> list[Part]:
    wood = chance.choice((TAN, ORANGE, BROWN, RED, (214, 170, 90)))
    half = ((0, -0.2), (0.26, -0.22), (0.38, -0.04), (0.3, 0.16), (0.48, 0.44), (0.4, 0.78), (0, 0.92))
    strings = [Part(((x, -0.8), (x, 0.6)), (230, 226, 214), width=0.008) for x in (-0.035, 0.0, 0.035)]
    return [
        Part(smooth(half + mirrored(half[-2:0:-1])), wood),
        Part(ellipse(0, 0.2, 0.15), DARK),
        Part(box(-0.07, -0.72, 0.07, 0.1), (80, 52, 36)),
        Part(((-0.11, -0.72), (-0.13, -0.96), (0.13, -0.96), (0.11, -0.72)), (60, 40, 30)),
        Part(box(-0.18, 0.56, 0.18, 0.63), (70, 46, 32)),
        *strings,
    ]


def _ice_cream(chance: Random) -> list[Part]:
    flavours = chance.sample(((250, 226, 180), PINK, (120, 74, 48), (160, 210, 160), (240, 240, 230)), 3)
    cone = ((-0.4, -0.02), (0.4, -0.02), (0.0, 0.95))
    lines = [
        Part(((-0.4 + 0.2 * i, -0.02), (0.14 + 0.09 * i, 0.61 - 0.2 * i)), BROWN, width=0.02) for i in range(1, 4)
    ] + [Part(((0.4 - 0.2 * i, -0.02), (-0.14 - 0.09 * i, 0.61 - 0.2 * i)), BROWN, width=0.02) for i in range(1, 4)]
    balls = ((0, -0.56), (-0.22, -0.2), (0.22, -0.2)) if chance.random() < 0.5 else ((0, -0.6), (0, -0.24))
    size = 0.29 if len(balls) == 3 else 0.38
    scoops = [Part(ellipse(x, y, size), flavours[i], round=True) for i, (x, y) in enumerate(balls)]
    return [Part(cone, (214, 160, 90)), *lines, *scoops]


def _lamp(chance: Random) -> list[Part]:
    top = chance.uniform(0.22, 0.4)
    return [
        Part(box(-0.05, 0.0, 0.05, 0.8), chance.choice((BROWN, GREY, DARK, (180, 140, 60)))),
        Part((*arc(0, 0.84, 0.36, 0.16, 180, 360),), DARK),
        Part(((-top, -0.8), (top, -0.8), (0.66, 0.05), (-0.66, 0.05)), chance.choice((YELLOW, WHITE, PINK, TEAL, RED))),
    ]


def _balloon(chance: Random) -> list[Part]:
    one, two = chance.sample(BRIGHT, 2)
    envelope = smooth(
        (
            (0, -0.92),
            (0.5, -0.74),
            (0.66, -0.3),
            (0.42, 0.12),
            (0.14, 0.4),
            (-0.14, 0.4),
            (-0.42, 0.12),
            (-0.66, -0.3),
            (-0.5, -0.74),
        )
    )
    gore = smooth(
        (
            (0, -0.92),
            (0.26, -0.7),
            (0.32, -0.3),
            (0.2, 0.12),
            (0.07, 0.4),
            (-0.07, 0.4),
            (-0.2, 0.12),
            (-0.32, -0.3),
            (-0.26, -0.7),
        )
    )
    ropes = [Part(((x, 0.38), (0.8 * x, 0.7)), BROWN, width=0.02) for x in (-0.13, 0.13)]
    return [*ropes, Part(envelope, one, round=True), Part(gore, two), Part(box(-0.14, 0.68, 0.14, 0.9, 0.03), BROWN)]


def _rocket(chance: Random) -> list[Part]:
    paint, body = chance.choice((RED, BLUE, ORANGE, TEAL)), chance.choice((WHITE, (200, 206, 214)))
    hull = smooth(((0, -0.92), (0.24, -0.5), (0.28, 0.0), (0.2, 0.5), (-0.2, 0.5), (-0.28, 0.0), (-0.24, -0.5)))
    fin = ((0.22, 0.12), (0.56, 0.4), (0.56, 0.72), (0.18, 0.48))
    return [
        Part(smooth(((-0.16, 0.5), (0.16, 0.5), (0.1, 0.74), (0, 0.96), (-0.1, 0.74))), ORANGE),
        Part(fin, paint),
        Part(mirrored(fin), paint),
        Part(hull, body, round=True),
        Part(smooth(((0, -0.92), (0.17, -0.66), (0.0, -0.6), (-0.17, -0.66))), paint),
        Part(ellipse(0, -0.2, 0.15), paint),
        Part(ellipse(0, -0.2, 0.1), GLASS),
    ]


def _glasses(chance: Random) -> list[Part]:
    frame = chance.choice((DARK, BROWN, RED, BLUE))
    lens = chance.choice((GLASS, (90, 96, 104), (170, 200, 160)))
    wide = chance.choice((0.3, 0.36))
    rims = [ellipse(x, 0, 0.36, wide) for x in (-0.46, 0.46)]
    return [
        Part(((-0.8, -0.08), (-0.96, -0.36), (-0.7, -0.46)), frame, width=0.05),
        Part(((0.8, -0.08), (0.96, -0.36), (0.7, -0.46)), frame, width=0.05),
        *[Part(rim, lens) for rim in rims],
        *[Part((*rim, rim[0]), frame, width=0.07) for rim in rims],
        Part(arc(0, 0.02, 0.12, 0.1, 180, 360), frame, width=0.06),
    ]


OBJECTS: dict[str, Draw] = {
    "balloon": _balloon,
    "bicycle": _bicycle,
    "car": _car,
    "chair": _chair,
    "clock": _clock,
    "cup": _cup,
    "glasses": _glasses,
    "guitar": _guitar,
    "house": _house,
    "ice cream": _ice_cream,
    "key": _key,
    "lamp": _lamp,
    "rocket": _rocket,
    "sailboat": _sailboat,
    "umbrella": _umbrella,
}

"""Living things and things in the sky. Each drawing of a thing differs a little."""

from __future__ import annotations

import math
from random import Random

from indexer.samples.palette import (
    BLUE,
    BRIGHT,
    BROWN,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    TEAL,
    WHITE,
    YELLOW,
    darker,
)
from indexer.samples.shapes import Draw, Part, arc, ellipse, mirrored, ring_of, smooth


def _apple(chance: Random) -> list[Part]:
    body = ((0, -0.42), (0.38, -0.58), (0.72, -0.3), (0.7, 0.2), (0.42, 0.68), (0.14, 0.72), (0, 0.66))
    skin = chance.choice((RED, (150, 180, 60), (214, 90, 50), (222, 180, 70)))
    lean = chance.uniform(-0.12, 0.12)
    return [
        Part(smooth(body + mirrored(body[-2:0:-1])), skin, round=True),
        Part(smooth(((0, -0.42), (lean / 2, -0.65), (lean, -0.85)), closed=False), BROWN, width=0.07),
        Part(smooth(((0.04, -0.62), (0.24, -0.86), (0.52, -0.84), (0.32, -0.62))), GREEN),
    ]


def _tree(chance: Random) -> list[Part]:
    trunk = Part(((-0.1, 0.9), (-0.07, 0.0), (0.07, 0.0), (0.12, 0.9)), BROWN)
    leaf = chance.choice((GREEN, (52, 118, 62), (190, 130, 50), (110, 160, 60)))
    if chance.random() < 0.35:
        tiers = [(0.62, 0.5), (0.52, 0.1), (0.38, -0.3)]
        return [trunk] + [Part(((-w, y), (0, y - 0.6), (w, y)), leaf) for w, y in tiers]
    bumps = [
        (0.6 + 0.06 * chance.random() + 0.06 * (-1) ** step, math.radians(step * 20 + chance.uniform(-4, 4)))
        for step in range(18)
    ]
    return [trunk, Part(smooth([(r * math.cos(a), -0.3 + 0.92 * r * math.sin(a)) for r, a in bumps]), leaf, round=True)]


def _fish(chance: Random) -> list[Part]:
    scales = chance.choice((ORANGE, TEAL, BLUE, YELLOW, RED))
    belly = chance.uniform(0.34, 0.46)
    body = smooth(((-0.6, 0), (-0.2, -belly), (0.4, -belly * 0.9), (0.86, 0), (0.4, belly * 0.9), (-0.2, belly)))
    dark = darker(scales, 0.75)
    return [
        Part(((-0.5, 0), (-0.95, -0.42), (-0.8, 0), (-0.95, 0.42)), dark),
        Part(smooth(((-0.2, -0.25), (0.0, -belly - 0.22), (0.4, -belly + 0.04), (0.2, -0.2))), dark),
        Part(body, scales, round=True),
        Part(((0.05, 0.08), (-0.22, 0.26), (-0.14, 0.02)), dark),
        Part(arc(0.32, 0, 0.12, 0.28, -70, 70), dark, width=0.04),
        Part(ellipse(0.6, -0.1, 0.09), WHITE),
        Part(ellipse(0.62, -0.1, 0.045), DARK),
    ]


def _sun(chance: Random) -> list[Part]:
    count = chance.choice((8, 10, 12))
    rays = []
    for step in range(count):
        a = 2 * math.pi * step / count
        ends = [(r * math.cos(a + d), r * math.sin(a + d)) for r, d in ((0.58, -0.13), (0.95, 0.0), (0.58, 0.13))]
        rays.append(Part(tuple(ends), ORANGE))
    return [*rays, Part(ellipse(0, 0, 0.5), YELLOW, round=True)]


def _flower(chance: Random) -> list[Part]:
    count = chance.choice((5, 6, 8))
    petal = chance.choice((PINK, WHITE, PURPLE, RED, YELLOW, (120, 150, 220)))
    parts = [
        Part(smooth(((0, -0.3), (0.05, 0.3), (-0.02, 0.95)), closed=False), GREEN, width=0.07),
        Part(smooth(((0.02, 0.55), (0.22, 0.28), (0.5, 0.26), (0.3, 0.5))), GREEN),
    ]
    for step in range(count):
        turn = 360 * step / count
        x, y = 0.34 * math.cos(math.radians(turn)), 0.34 * math.sin(math.radians(turn))
        parts.append(Part(ellipse(x, y - 0.35, 0.26, 1.1 / count + 0.02, turn), petal))
    return [*parts, Part(ellipse(0, -0.35, 0.18), ORANGE if petal == YELLOW else YELLOW, round=True)]


def _star(chance: Random) -> list[Part]:
    return [Part(ring_of(5, 0.9, chance.uniform(0.36, 0.44)), chance.choice((YELLOW, RED, ORANGE, BLUE, PURPLE)))]


def _mushroom(chance: Random) -> list[Part]:
    cap = chance.choice((RED, RED, BROWN, ORANGE))
    stem = ((-0.2, 0.0), (-0.24, 0.5), (-0.3, 0.82), (0, 0.88), (0.3, 0.82), (0.24, 0.5), (0.2, 0.0))
    dots = ((-0.42, -0.2, 0.1), (0.02, -0.48, 0.13), (0.42, -0.22, 0.11), (-0.02, -0.12, 0.08))
    hat = Part((*arc(0, 0.05, 0.82, 0.8, 180, 360), *arc(0, 0.05, 0.82, 0.14, 0, 180)), cap, round=True)
    spots = [Part(ellipse(x, y, r, 0.8 * r), WHITE) for x, y, r in dots] if cap == RED else []
    return [Part(smooth(stem), (240, 230, 208)), hat, *spots]


def _butterfly(chance: Random) -> list[Part]:
    wing, dots = chance.sample(BRIGHT, 2)
    upper = smooth(((0.04, -0.1), (0.3, -0.62), (0.82, -0.74), (0.88, -0.3), (0.5, 0.04)))
    lower = smooth(((0.04, 0.0), (0.5, 0.04), (0.7, 0.36), (0.46, 0.72), (0.18, 0.5)))
    spot = [ellipse(0.6, -0.42, 0.13), ellipse(0.44, 0.36, 0.1)]
    feeler = smooth(((0.02, -0.4), (0.12, -0.66), (0.26, -0.84)), closed=False)
    parts = []
    for side in (tuple, mirrored):
        parts += [Part(side(lower), wing), Part(side(upper), wing)]
        parts += [Part(side(o), dots) for o in spot] + [Part(side(feeler), DARK, width=0.03)]
    return [*parts, Part(ellipse(0, 0.05, 0.07, 0.5), DARK)]


def _cat(chance: Random) -> list[Part]:
    fur = chance.choice((ORANGE, GREY, DARK, (226, 210, 186), BROWN))
    tail = smooth(((0.3, 0.78), (0.74, 0.7), (0.8, 0.3), (0.62, 0.1)), closed=False)
    whiskers = [
        Part(((s * 0.1, -0.2), (s * 0.5, y)), (240, 236, 226) if fur == DARK else DARK, width=0.015)
        for s in (-1, 1)
        for y in (-0.27, -0.16)
    ]
    return [
        Part(tail, fur, width=0.13),
        Part(smooth(((0, -0.1), (0.3, 0.1), (0.42, 0.7), (0.3, 0.9), (-0.3, 0.9), (-0.42, 0.7), (-0.3, 0.1))), fur),
        Part(((-0.38, -0.36), (-0.36, -0.86), (-0.06, -0.6)), fur),
        Part(((0.38, -0.36), (0.36, -0.86), (0.06, -0.6)), fur),
        Part(ellipse(0, -0.34, 0.4, 0.33), fur, round=True),
        *[Part(ellipse(x, -0.4, 0.07, 0.08), (206, 214, 90)) for x in (-0.16, 0.16)],
        *[Part(ellipse(x, -0.4, 0.025, 0.07), (20, 20, 24)) for x in (-0.16, 0.16)],
        Part(((-0.05, -0.26), (0.05, -0.26), (0, -0.2)), PINK),
        *whiskers,
        Part(((0, 0.5), (0, 0.88)), (70, 60, 56), width=0.02),
    ]


def _duck(chance: Random) -> list[Part]:
    down = chance.choice((YELLOW, WHITE, (150, 110, 70)))
    body = smooth(((-0.9, -0.12), (-0.5, 0.08), (0.1, 0.0), (0.5, 0.16), (0.52, 0.5), (0.1, 0.74), (-0.5, 0.62)))
    return [
        Part(((0.52, -0.42), (0.94, -0.3), (0.54, -0.2)), ORANGE),
        Part(body, down, round=True),
        Part(smooth(((0.06, 0.2), (0.02, -0.4), (0.52, -0.3), (0.46, 0.3))), down),
        Part(ellipse(0.3, -0.36, 0.29), down, round=True),
        Part(smooth(((-0.46, 0.2), (0.14, 0.18), (0.06, 0.44), (-0.26, 0.5))), darker(down, 0.88)),
        Part(ellipse(0.4, -0.44, 0.05), DARK),
    ]


NATURE: dict[str, Draw] = {
    "apple": _apple,
    "butterfly": _butterfly,
    "cat": _cat,
    "duck": _duck,
    "fish": _fish,
    "flower": _flower,
    "mushroom": _mushroom,
    "star": _star,
    "sun": _sun,
    "tree": _tree,
}

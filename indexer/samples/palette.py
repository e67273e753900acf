"""Colours, RGB from 0 to 255."""

from __future__ import annotations

from indexer.samples.shapes import Colour

RED: Colour = (204, 48, 44)
ORANGE: Colour = (232, 126, 38)
YELLOW: Colour = (244, 200, 60)
GREEN: Colour = (74, 150, 70)
BLUE: Colour = (52, 104, 190)
TEAL: Colour = (44, 150, 150)
PURPLE: Colour = (126, 84, 170)
PINK: Colour = (232, 130, 160)
BROWN: Colour = (122, 80, 48)
TAN: Colour = (206, 164, 112)
WHITE: Colour = (244, 242, 236)
GREY: Colour = (140, 144, 150)
DARK: Colour = (46, 46, 54)
GLASS: Colour = (186, 220, 236)
BRIGHT = (RED, ORANGE, YELLOW, GREEN, BLUE, TEAL, PURPLE, PINK)


def lighter(colour: Colour, amount: float) -> Colour:
    """The colour mixed with white; ``amount`` 1 is white."""
    red, green, blue = (round(c + (255 - c) * amount) for c in colour)
    return red, green, blue


def darker(colour: Colour, factor: float) -> Colour:
    """The colour mixed with black; ``factor`` 0 is black."""
    red, green, blue = (round(c * factor) for c in colour)
    return red, green, blue

"""Pictures with parts: pages of an album, collages, panoramas, and views all around."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sketch_search.indexer.samples import draw_photo
from sketch_search.model.images.parts import Frame

FOUR = ("umbrella", "cat", "guitar", "bicycle")


def page(
    things: Sequence[str], columns: int, ground: str = "ivory", gap: int = 30, margin: int = 40, tilt: float = 0
) -> tuple[Image.Image, list[Frame]]:
    """Returns a scan of a page with photos of these things, and where these are before it is tilted, in degrees."""
    side, rows = 200, -(-len(things) // columns)
    width, height = (2 * margin + count * (side + gap) - gap for count in (columns, rows))
    paper, frames = Image.new("RGB", (width, height), ground), list[Frame]()
    for number, thing in enumerate(things):
        left, top = (margin + place * (side + gap) for place in (number % columns, number // columns))
        paper.paste(draw_photo(thing, number + 1).resize((side, side)), (left, top))
        frames.append((left, top, left + side, top + side))
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 1))
    scanned = Image.fromarray((np.asarray(paper) + noise).clip(0, 255).astype(np.uint8))
    return scanned.rotate(tilt, Image.Resampling.BICUBIC, fillcolor=ground), frames


def panorama(things: Sequence[str], turned: int = 0) -> Image.Image:
    """Returns photos of these things side by side, as wide as they are high, turned by so many pixels around."""
    every = np.concatenate([np.asarray(draw_photo(thing, 1).resize((200, 200))) for thing in things], axis=1)
    return Image.fromarray(np.roll(every, turned, axis=1))

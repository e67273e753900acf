"""The parts of a query, as the networks see them.

Today there is one part, the sketch. Words and photos are to become further fields of ``QueryParts``: each part gives
every candidate a score of its own (``service.search.scorer``).
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from model import Matcher, Tokens
from service.search.stopwatch import Stopwatch


@dataclass(frozen=True)
class QueryParts:
    """The encoded parts of one query. sketch: a batch of one, on the matcher's device."""

    sketch: Tokens


def encode_parts(image: Image.Image, matcher: Matcher, watch: Stopwatch) -> QueryParts:
    """Crop, resize and encode a sketch, RGB. Raises BlankSketch where it has no ink."""
    pixels = matcher.prepare(image, "sketch")
    watch.lap("prepare")
    sketch = matcher.encode(pixels.unsqueeze(0), "sketch")
    watch.lap("encode")
    return QueryParts(sketch)

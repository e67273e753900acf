"""The parts of a query, as the networks see them.

Today there is one part, the sketch. Words and photos are to become further fields of ``QueryParts``: each part gives
every candidate a score of its own (``service.search.scorer``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from model import Matcher, Tokens
from model.images import Pixels
from service.search.stopwatch import Stopwatch


@dataclass(frozen=True)
class QueryParts:
    """The encoded parts of one query. sketch: a batch of one, on the matcher's device."""

    sketch: Tokens


#: An RGB picture of any size, or its pixels as ``Preprocessing.pixels`` prepares them.
Sketch: TypeAlias = Image.Image | Pixels


def encode_parts(drawn: Sketch, matcher: Matcher, watch: Stopwatch) -> QueryParts:
    """Crop, resize and encode a sketch. Raises BlankSketch where a picture has no ink."""
    if isinstance(drawn, Image.Image):
        pixels = matcher.prepare(drawn, "sketch")
    else:
        pixels = matcher.preprocessing.to_tensor(drawn)
    watch.lap("prepare")
    sketch = matcher.encode(pixels.unsqueeze(0), "sketch")
    watch.lap("encode")
    return QueryParts(sketch)

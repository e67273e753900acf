"""The parts of a query, as the networks see them.

The networks see one part, the sketch, and CLIP may see it, too. A photo that is sent instead counts as liked
(``service.search.feedback``). A word gives every photo a score of its own (``service.search.naming``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model import Matcher, Tokens
from model.images import Pixels
from model.network import Modality
from service.search.stopwatch import Stopwatch


@dataclass(frozen=True)
class QueryParts:
    """The encoded parts of one query.

    Attributes:
        sketch: a batch of one, on the matcher's device.
        clip: (e,) float32 of unit length, the sketch's vector by CLIP; None where it is not compared by that.
    """

    sketch: Tokens
    clip: NDArray[np.float32] | None = None


#: A sketch, or the photo of a query: an RGB picture, or its pixels as ``Preprocessing.pixels`` prepares them.
Sketch: TypeAlias = Image.Image | Pixels

#: What encodes pictures: ``Matcher.encode``, here or on another machine.
Encode: TypeAlias = Callable[[torch.Tensor, Modality], Tokens]


def encode_parts(drawn: Sketch, matcher: Matcher, watch: Stopwatch, encode: Encode | None = None) -> QueryParts:
    """Crop, resize and encode a sketch. Raises BlankSketch where a picture has no ink.

    encode: None for that of the matcher.
    """
    return QueryParts(_encode(drawn, "sketch", matcher, watch, encode or matcher.encode))


def encode_photo(photo: Sketch, matcher: Matcher, watch: Stopwatch, encode: Encode) -> torch.Tensor:
    """Resize and encode a photo that is a query. Returns its [Ret], (1, d)."""
    return _encode(photo, "photo", matcher, watch, encode).ret


def _encode(given: Sketch, modality: Modality, matcher: Matcher, watch: Stopwatch, encode: Encode) -> Tokens:
    """The tokens of one picture, a batch of one."""
    if isinstance(given, Image.Image):
        pixels = matcher.prepare(given, modality)
    else:
        pixels = matcher.preprocessing.to_tensor(given)
    watch.lap("prepare")
    tokens = encode(pixels.unsqueeze(0), modality)
    watch.lap("encode")
    return tokens

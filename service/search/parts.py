"""The pictures of a query, encoded: a sketch, or a photo in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from PIL import Image

from model import Matcher, Tokens
from model.images import Pixels
from model.network import Modality
from service.search.stopwatch import Stopwatch

#: A sketch, or the photo of a query: an RGB picture, or its pixels as ``Preprocessing.pixels`` prepares them.
Sketch: TypeAlias = Image.Image | Pixels

#: What encodes pictures: ``Matcher.encode``, here or on another machine.
Encode: TypeAlias = Callable[[torch.Tensor, Modality], Tokens]


def encode_picture(given: Sketch, modality: Modality, matcher: Matcher, watch: Stopwatch, encode: Encode) -> Tokens:
    """Crops, resizes and encodes a picture: tokens of a batch of one. Raises BlankSketch for a sketch without ink."""
    if isinstance(given, Image.Image):
        pixels = matcher.prepare(given, modality)
    else:
        pixels = matcher.preprocessing.to_tensor(given)
    watch.lap("prepare")
    tokens = encode(pixels.unsqueeze(0), modality)
    watch.lap("encode")
    return tokens

"""The pictures of a query, encoded: a sketch, or a photo in its place; and how long each stage of a search takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from PIL import Image

from model import Matcher, Tokens
from model.images import Pixels
from model.network import Modality
from service.schemas import StageTimings

Stage = Literal["prepare", "encode", "clusters", "photos", "diffusion"]


class Stopwatch:
    """Times the stages of one search, from the moment it is made. All time goes to one stage or another.

    On a GPU work is only queued: each reading waits for it, or a stage's time would show in the next one.
    """

    def __init__(self, device: torch.device, prepare_ms: float = 0.0, encode_ms: float = 0.0) -> None:
        """``prepare_ms``, ``encode_ms``: what these stages have taken before the search."""
        self._device = device
        self._seconds: dict[Stage, float] = dict.fromkeys(("prepare", "encode", "clusters", "photos", "diffusion"), 0.0)
        self._seconds |= {"prepare": prepare_ms / 1000, "encode": encode_ms / 1000}
        self._start = self._last = self._now()

    def lap(self, stage: Stage) -> None:
        """Count the time since the last lap as this stage's. A stage may have several laps."""
        now = self._now()
        self._seconds[stage] += now - self._last
        self._last = now

    def passed(self) -> float:
        """The milliseconds since the start."""
        return (self._now() - self._start) * 1000

    def timings(self) -> StageTimings:
        """Milliseconds of each stage, and of all, to the microsecond."""
        milliseconds = {stage: round(seconds * 1000, 3) for stage, seconds in self._seconds.items()}
        return StageTimings(**milliseconds, total=round(sum(milliseconds.values()), 3))

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


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

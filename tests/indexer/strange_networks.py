"""Variants of the tiny network that have faults."""

from collections.abc import Callable
from typing import Any

import model
from model.engine import Floats, Modality, Tokens
from model.images import Pixels, Preprocessing


def calling(happening: Callable[[], object], matcher: model.Matcher) -> Preprocessing:
    """Returns the preprocessing of a matcher, which calls something for each photo that it has prepared."""

    class Calling(Preprocessing):
        def normalised(self, pixels: Pixels) -> Floats:
            happening()
            return super().normalised(pixels)

        def __reduce__(self) -> tuple[type[Preprocessing], tuple[object, ...]]:
            # What decoding processes get has nothing to call.
            return Preprocessing, tuple(vars(self).values())

    return Calling(**vars(matcher.preprocessing))


class Overflowing:
    """The tiny network, which gives the last photo of every batch values that float16 cannot hold."""

    def __init__(self, matcher: model.Matcher) -> None:
        self._matcher, self.photo_sha256 = matcher, "0" * 64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matcher, name)

    def encode(self, images: Floats, modality: Modality) -> Tokens:
        tokens = self._matcher.encode(images, modality)
        features = tokens.features.copy()
        features[-1, 1:] = 1e6
        return Tokens(features, tokens.positions)

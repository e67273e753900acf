"""Variants of the tiny network: without patch tokens, or with faults."""

from collections.abc import Callable

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


class GlobalVector:
    """The tiny network without its patch tokens."""

    def __init__(self, matcher: model.Matcher) -> None:
        self._matcher = matcher
        self.photo_sha256, self.preprocessing_fingerprint = "0" * 64, matcher.preprocessing_fingerprint
        self.config, self.device, self.dtype = matcher.config, matcher.device, matcher.dtype
        self.preprocessing = matcher.preprocessing

    def token_count(self, modality: str) -> int:
        return 1

    def encode(self, images: Floats, modality: Modality) -> Tokens:
        return Tokens.of_ret(self._matcher.encode(images, modality).ret)


class ShortOfMemory(GlobalVector):
    """The tiny network, with memory for three photos."""

    def __init__(self, matcher: model.Matcher) -> None:
        super().__init__(matcher)
        self.photo_sha256 = matcher.photo_sha256
        self.token_count, self.encode = matcher.token_count, matcher.encode  # type: ignore[method-assign,assignment]
        room = iter(range(3))

        def take() -> None:
            if next(room, None) is None:
                raise MemoryError

        self.preprocessing = calling(take, matcher)


class Overflowing(GlobalVector):
    """Gives the last photo of every batch values that float16 cannot hold."""

    def token_count(self, modality: str) -> int:
        return self._matcher.token_count("photo")

    def encode(self, images: Floats, modality: Modality) -> Tokens:
        tokens = self._matcher.encode(images, modality)
        features = tokens.features.copy()
        features[-1, 1:] = 1e6
        return Tokens(features, tokens.positions)

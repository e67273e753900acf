"""Defines the errors that this package raises. Each message contains the remedy."""

from typing import Self


class UserError(Exception):
    """A request that cannot be carried out. The message is a sentence with the reason and the remedy."""


class ModelError(UserError):
    """A checkpoint, configuration or request that the networks cannot use."""


class GalleryUnusable(UserError):
    """The arrays of a gallery are damaged, or do not fit the network."""


class ImageError(UserError):
    """A picture that cannot be used."""


class UndecodableImage(ImageError):
    """The image type is known, but the bytes are damaged, truncated or empty."""


class UnsupportedImage(ImageError):
    """The image type is not supported."""


class ImageTooLarge(ImageError):
    """The picture has more pixels or bytes than the limit. Both are checked before decoding, pixels by its header."""

    @classmethod
    def of(cls, width: int, height: int, most: int) -> Self:
        pixels = f"{width} x {height} pixels ({width * height / 1e6:,.0f} million)"
        return cls(f"{pixels} exceed the limit of {most:,} pixels; make it smaller, or raise SKETCH_SEARCH_MAX_PIXELS")


class CostlyImage(ImageError):
    """Decoding the picture takes more time or memory than the limit, by its header or when tried."""


class SlowImage(CostlyImage):
    """Decoding the picture took too long and was stopped."""


class EndedDecoding(CostlyImage):
    """The system stopped the decoder twice, for reasons beyond the picture. At another time it may succeed."""


class DecodingUnavailable(ModelError):
    """No process can be started to decode pictures, whatever the picture."""


class BlankSketch(ImageError):
    """The sketch has no ink."""


class MalformedSketch(ImageError):
    """JSON, around a sketch or of its strokes, that is not as documented."""

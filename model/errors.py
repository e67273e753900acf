"""Defines the errors that this package raises; each message says what to do."""

from typing import Self


class UserError(Exception):
    """A request that cannot be done. The message is a sentence that says why, and what to do."""


class ModelError(UserError):
    """A checkpoint, a configuration or a request that the networks cannot work with."""


class ImageError(UserError):
    """A picture that cannot be used."""


class UndecodableImage(ImageError):
    """The bytes are of a known image type but damaged, truncated or empty."""


class UnsupportedImage(ImageError):
    """The bytes are not of an image type that this program reads."""


class ImageTooLarge(ImageError):
    """The picture has more pixels or bytes than the limit. Both are found before decoding, pixels in its header."""

    @classmethod
    def of(cls, width: int, height: int, most: int) -> Self:
        millions = f"{width * height / 1e6:,.0f} million"
        return cls(
            f"{width} x {height} pixels ({millions}) are more than the limit of {most:,} pixels; make it smaller, or "
            "set SBIR_MAX_PIXELS to more"
        )


class CostlyImage(ImageError):
    """Decoding the picture would take more time or memory than any picture may; or took it, and was given up."""


class SlowImage(CostlyImage):
    """Decoding the picture took too much time, and was given up."""


class EndedDecoding(CostlyImage):
    """The system ended the decoding twice, probably for want of memory. At another time it may succeed."""


class DecodingUnavailable(ModelError):
    """No process can be started to decode pictures. This says nothing about any picture."""


class BlankSketch(ImageError):
    """The sketch has no ink."""

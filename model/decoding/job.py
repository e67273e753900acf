"""A job: the picture that is to be made of a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from PIL import Image

from model.images import MAX_PIXELS, OpenedImage, Preprocessing, open_dated


@dataclass(frozen=True)
class Job:
    """One picture: how it is opened, and what is done with it then. All of it happens in the same process.

    Attributes:
        max_pixels, least_side, sketch: as ``model.images.open_image`` has them.
        longest_side: the picture is reduced until no side is longer than so many pixels; None leaves it as it is.
        network_input: the side of a network's input, in pixels. The picture is prepared as ``Preprocessing.pixels``
            does it; None leaves it as it is.
        released, padded: as ``Preprocessing`` has them.
    """

    max_pixels: int = MAX_PIXELS
    least_side: int | None = None
    sketch: bool = False
    longest_side: int | None = None
    network_input: int | None = None
    released: bool = False
    padded: bool = False

    @classmethod
    def preparing(cls, preprocessing: Preprocessing, modality: str, max_pixels: int = MAX_PIXELS) -> Job:
        """The job that makes what ``preprocessing.pixels`` gives for the file: (H, W, 3), as a picture."""
        return cls(
            max_pixels,
            preprocessing.least_side(modality),
            sketch=modality == "sketch",
            network_input=preprocessing.image_size,
            released=preprocessing.released,
            padded=preprocessing.padded,
        )

    def run(self, data: bytes) -> OpenedImage:
        """The 8-bit RGB picture. Raises ImageError: what ``open_image`` raises, and BlankSketch."""
        opened = open_dated(data, max_pixels=self.max_pixels, least_side=self.least_side, sketch=self.sketch)
        image = opened.image
        if self.longest_side is not None:
            image.thumbnail((self.longest_side, self.longest_side), Image.Resampling.LANCZOS)
        if self.network_input is not None:
            preprocessing = Preprocessing(self.network_input, released=self.released, padded=self.padded)
            image = Image.fromarray(preprocessing.pixels(image, "sketch" if self.sketch else "photo"))
        return replace(opened, image=image)

    @property
    def most_pixels(self) -> int:
        """No picture that ``run`` makes has more."""
        return max(self.max_pixels, (self.network_input or 0) ** 2)

    def to_json(self) -> bytes:
        """The text that ``from_json`` reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Job:
        """The job that ``to_json`` wrote."""
        return cls(**json.loads(text))

"""Reads what a photo's file says of its taking: the time of day, the camera, the lens."""

import re
from contextlib import suppress
from dataclasses import dataclass

from PIL import ExifTags, Image

_TIME = re.compile(r"\s*\d{4}[:/.-]\d\d[:/.-]\d\d[ T]((?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?)", re.ASCII)
# A longer name is no camera's.
_LONGEST = 100


@dataclass(frozen=True)
class Recorded:
    """Holds what a picture's file says of it. width, height: upright, of the whole picture. time: HH:MM or HH:MM:SS."""

    width: int
    height: int
    time: str | None = None
    camera: str | None = None
    lens: str | None = None


def read_recorded(picture: Image.Image, size: tuple[int, int], *, turned: bool, dated: bool) -> Recorded:
    """Reads the EXIF of an opened picture. size: its width and height as stored. turned: whether by a right angle.

    dated: whether its day is known; without one, the clock of the camera was never set.
    """
    width, height = reversed(size) if turned else size
    time, camera, lens = None, None, None
    with suppress(Exception):  # Cameras and editors write EXIF that no parser expects.
        exif = picture.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        moments = (inner.get(ExifTags.Base.DateTimeOriginal), exif.get(ExifTags.Base.DateTime))
        if dated:
            time = next((found[1] for one in moments if (found := _TIME.match(str(one)))), None)
        maker, model = (_name(exif.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        # Most models begin with their maker: Canon, Canon EOS 5D.
        first = maker.split()[0].lower() if maker else ""
        camera = (
            model if not maker or (model or "").lower().startswith(first) else " ".join(filter(None, (maker, model)))
        )
        lens = _name(inner.get(ExifTags.Base.LensModel))
    return Recorded(width, height, time, camera, lens)


def _name(value: object) -> str | None:
    """Returns a name of printable characters, None if there is none."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST] or None

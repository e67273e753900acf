"""The day on which a photo was taken, as its EXIF block says."""

from __future__ import annotations

import re
from datetime import date, timedelta

from PIL import ExifTags, Image

_DAY = re.compile(r"\s*(\d{4})[:-](\d\d)[:-](\d\d)(?!\d)", re.ASCII)
# There are no photos from before; a camera whose clock was never set may say the year 0.
_FIRST_YEAR = 1826


def day_taken(picture: Image.Image) -> date | None:
    """The day of EXIF's DateTimeOriginal, by the clock of the camera; None if it says none, or one that cannot be.

    A day that is still to come, as a camera with a wrong clock may write it, counts as none.
    """
    # Cameras and editors write EXIF that no parser expects; a photo without its day is better than none.
    try:
        exif = picture.getexif()
        tag = ExifTags.Base.DateTimeOriginal
        text = exif.get_ifd(ExifTags.IFD.Exif).get(tag, exif.get(tag))
        return _read_day(text, date.today())
    except Exception:
        return None


def _read_day(text: object, today: date) -> date | None:
    if not isinstance(text, str) or not (found := _DAY.match(text)):
        return None
    try:
        day = date(*map(int, found.groups()))
    except ValueError:
        return None
    # It may be tomorrow already where the photo was taken.
    return day if day.year >= _FIRST_YEAR and day <= today + timedelta(days=1) else None

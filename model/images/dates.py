"""Finds the day on which a photo was taken: in its file, in files beside it, and in its name."""

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

from PIL import ExifTags, Image

_DAY = re.compile(r"\s*(\d{4})[:/.-](\d\d)[:/.-](\d\d)(?!\d)", re.ASCII)
# IMG_20150615_101112, PXL_20150615_..., IMG-20150615-WA0007, 2015-06-15 10.11.12, Screenshot_2015-06-15-10-11-12.
_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_. ]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)", re.ASCII)
# The names that XMP has for the day, the best first; as an attribute or an element, by any prefix.
_IN_XMP = [
    re.compile(rb"\b[\w-]{1,40}:" + name + rb"\s{0,9}(?:=\s{0,9}[\"']|>)\s{0,99}(\d{4}-\d\d-\d\d)")
    for name in (b"DateTimeOriginal", b"DateCreated", b"DateTimeDigitized", b"CreateDate")
]
_IN_TAKEOUT = re.compile(rb'"photoTakenTime"\s{0,99}:\s{0,99}\{\s{0,99}"timestamp"\s{0,99}:\s{0,99}"(-?\d{1,15})"')
# Google's Takeout cuts the names of these files, and writes that of "IMG(1).jpg" as "IMG.jpg(1).json".
_TAKEOUT, _LONGEST_IN_TAKEOUT = (".supplemental-metadata", ""), 46
_NUMBERED = re.compile(r"(.+)(\(\d{1,9}\))(\.[^.]*)")
_GPS_DAY = 29
# The year of the first photo. A camera whose clock was never set may record the year 0.
_FIRST_YEAR = 1826
# A computer whose clock is before this day was never set, for example without a battery for its clock.
_FIRST_TODAY = date(2024, 1, 1)
# The most bytes of XMP to search.
_MAX_XMP = 1 << 20


def day_in_file(picture: Image.Image) -> date | None:
    """Reads the day by the camera's clock from a picture's metadata; None if they do not say, or an impossible one.

    The first of these that is there counts: EXIF's DateTimeOriginal, DateTimeDigitized and DateTime, XMP, GPS.
    """
    with suppress(Exception):  # Cameras and editors write EXIF that no parser expects.
        exif = picture.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime):
            for block in (inner, exif):
                if day := _day(block.get(tag)):
                    return day
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    if day := day_in_xmp(xmp.encode() if isinstance(xmp, str) else xmp):
        return day
    with suppress(Exception):
        return _day(picture.getexif().get_ifd(ExifTags.IFD.GPSInfo).get(_GPS_DAY))
    return None


def day_in_xmp(xmp: bytes) -> date | None:
    """Reads the day from XMP, in a picture or in a file beside it."""
    for name in _IN_XMP:
        if (found := name.search(xmp, 0, _MAX_XMP)) and (day := _day(found[1].decode())):
            return day
    return None


def names_beside(name: str) -> list[str]:
    """Lists the names of files beside a photo that may say its day, the best first."""
    stem, names = name.rpartition(".")[0] or name, [(name, "")]
    if found := _NUMBERED.fullmatch(name):
        names.insert(0, (found[1] + found[3], found[2]))
    xmp = [f"{one}{ending}" for one in (name, stem) for ending in (".xmp", ".XMP")]
    whole = [f"{name}{ending}.json" for ending in _TAKEOUT]
    cut = [f"{(one + ending)[:_LONGEST_IN_TAKEOUT]}{number}.json" for one, number in names for ending in _TAKEOUT]
    return [*dict.fromkeys([*xmp, *whole, *cut])]


def day_beside(data: bytes) -> date | None:
    """Reads the day from a file that a program has put beside a photo: XMP, or the JSON of a Google Takeout."""
    if found := _IN_TAKEOUT.search(data):
        with suppress(OverflowError, ValueError):
            day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(found[1]))).date()
            return _possible(*day.isoformat().split("-"))
    return day_in_xmp(data)


def day_in_name(name: str) -> date | None:
    """Reads the day from a file's name, as phones, messengers and scanners write it: ``IMG_20150615_101112.jpg``."""
    for found in _IN_NAME.finditer(name):
        if day := _possible(found[1], found[3], found[4]):
            return day
    return None


def _day(text: object) -> date | None:
    found = _DAY.match(text) if isinstance(text, str) else None
    return _possible(*found.groups()) if found else None


def _possible(*numbers: str) -> date | None:
    with suppress(ValueError):
        day, today = date(*map(int, numbers)), date.today()
        # In the time zone of the photo it may be tomorrow already.
        if day.year >= _FIRST_YEAR and (day <= today + timedelta(days=1) or today < _FIRST_TODAY):
            return day
    return None

"""Finds what is recorded of a photo: its day, in its file, in files beside it, and in its name; time and camera."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from PIL import ExifTags, Image

_DAY = re.compile(r"\s*(\d{4})[:/.-](\d\d)[:/.-](\d\d)(?!\d)", re.ASCII)
# IMG_20150615_101112, PXL_20150615_..., IMG-20150615-WA0007, 2015-06-15 10.11.12, IMG_20150615101112.
_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_. ]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])"
    r"(?=(?:(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?:\d{3})?)?(?!\d))",
    re.ASCII,
)
# 15.06.2015; with other signs, as in 15-06-2015 or 06-15-2015, only if there is one way to read it.
_DAY_FIRST = re.compile(r"(?<!\d)(\d\d)([-_. ])(\d\d)\2((?:19|20)\d\d)(?!\d)", re.ASCII)
# FB_IMG_1434364272000, mmexport1434364272000: milliseconds since 1970.
_MILLISECONDS = re.compile(
    r"(?:FB_IMG_|received_|mmexport|wx_camera_|IMG_|image_|photo_|screenshot_)(1\d{12})(?!\d)", re.ASCII | re.IGNORECASE
)
# Folders that programs make for each day: 2015/06/15.
_IN_FOLDERS = re.compile(r"(?:^|/)((?:19|20)\d\d)/(\d\d)/(\d\d)/[^/]*$", re.ASCII)
# The names that XMP has for the day, the best first; as an attribute or an element, by any prefix.
_IN_XMP = [
    re.compile(rb"\b[\w-]{1,40}:" + name + rb"\s{0,9}(?:=\s{0,9}[\"']|>)\s{0,99}(\d{4}-\d\d-\d\d)")
    for name in (b"DateTimeOriginal", b"DateCreated", b"DateTimeDigitized", b"CreateDate")
]
_IN_TAKEOUT = re.compile(rb'"photoTakenTime"\s{0,99}:\s{0,99}\{\s{0,99}"timestamp"\s{0,99}:\s{0,99}"(-?\d{1,15})"')
# Google's Takeout cuts the names of these files, and writes that of "IMG(1).jpg" as "IMG.jpg(1).json".
_TAKEOUT, _LONGEST_IN_TAKEOUT = (".supplemental-metadata", ""), 46
_NUMBERED = re.compile(r"(.+)(\(\d{1,9}\))(\.[^.]*)")
_IN_GEODATA = re.compile(rb'"longitude"\s{0,99}:\s{0,99}(-?\d{1,3}(?:\.\d{1,20})?)')
# An edited copy has no file beside it: IMG_1-edited.jpg, IMG_1-bearbeitet(1).jpg, whatever the language.
_EDITED = re.compile(r"(.+)-[^-.()]+((?:\(\d{1,9}\))?)(\.[^.]*)")
_GPS_WEST, _GPS_LONGITUDE, _GPS_TIME, _GPS_DAY = 3, 4, 7, 29
_OFFSETS = (0x9011, 0x9010, 0x9012)
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
# The year of the first photo. A camera whose clock was never set may record the year 0.
_FIRST_YEAR = 1826
# A computer whose clock is before this day was never set, for example without a battery for its clock.
_FIRST_TODAY = date(2024, 1, 1)
# The most bytes of XMP to search.
_MAX_XMP = 1 << 20
_TIME = re.compile(r"\s*\d{4}[:/.-]\d\d[:/.-]\d\d[ T]((?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?)", re.ASCII)
# A longer name is no camera's.
_LONGEST_NAME = 100


def day_in_file(picture: Image.Image) -> date | None:
    """Reads the camera's day from EXIF's DateTimeOriginal, DateTimeDigitized, DateTime, XMP or GPS, or None."""
    with suppress(Exception):  # Cameras and editors write EXIF that no parser expects.
        exif = picture.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        tags = ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime
        if day := next(filter(None, (_day(block.get(tag)) for tag in tags for block in (inner, exif))), None):
            return day
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    if day := day_in_xmp(xmp.encode() if isinstance(xmp, str) else xmp):
        return day
    day = None
    with suppress(Exception):
        places = picture.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        # Satellites have the time of Greenwich.
        if (day := _day(places.get(_GPS_DAY))) and (zone := zone_in_file(picture)) is not None:
            hours, minutes = map(float, places[_GPS_TIME][:2])
            return (datetime(day.year, day.month, day.day) + timedelta(hours=hours, minutes=minutes + zone)).date()
    return day


def zone_in_file(picture: Image.Image) -> int | None:
    """Reads the minutes ahead of Greenwich from EXIF's zone, or else by 15 degrees of longitude for an hour."""
    with suppress(Exception):
        exif = picture.getexif()
        inner, places = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
        for tag in _OFFSETS:
            if offset := _OFFSET.match(str(inner.get(tag))):
                return int(f"{offset[1]}1") * (60 * int(offset[2]) + int(offset[3]))
        degrees = [float(part) for part in places[_GPS_LONGITUDE]]
        longitude = sum(part / 60**at for at, part in enumerate(degrees))
        return zone_at(-longitude if places.get(_GPS_WEST) == "W" else longitude)
    return None


def zone_at(longitude: float) -> int | None:
    # Programs write 0 for an unknown place.
    return 60 * round(longitude / 15) if 0 < abs(longitude) <= 180 else None


def day_in_xmp(xmp: bytes) -> date | None:
    """Reads the day from XMP, in a picture or in a file beside it."""
    matches = (name.search(xmp, 0, _MAX_XMP) for name in _IN_XMP)
    return next(filter(None, (_day(match[1].decode()) for match in matches if match)), None)


def names_beside(name: str) -> list[str]:
    """Lists the names of files beside a photo that may say its day, the best first, as ``beside`` has them."""
    listed = list[str]()
    edited = _EDITED.fullmatch(name)
    for whole in (name, edited[1] + edited[2] + edited[3]) if edited else (name,):
        stem, names = whole.rpartition(".")[0] or whole, [(whole, "")]
        if numbered := _NUMBERED.fullmatch(whole):
            names.insert(0, (numbered[1] + numbered[3], numbered[2]))
        listed += [f"{base}.xmp" for base in (whole, stem)] + [f"{whole}{ending}.json" for ending in _TAKEOUT]
        cut = ((base + ending, number) for base, number in names for ending in _TAKEOUT)
        listed += [f"{base[:_LONGEST_IN_TAKEOUT]}{number}.json" for base, number in cut]
    # The original of an edited copy may be of another type.
    return [*dict.fromkeys(map(str.casefold, [*listed, f"{edited[1]}."] if edited else listed))]


def beside(names: Iterable[str]) -> dict[str, str]:
    """Maps the names that ``names_beside`` lists to those of a folder's files, which may be of other case."""
    described = [name for name in names if name.lower().endswith((".xmp", ".json"))]
    stems = {f"{name.partition('.')[0].casefold()}.": name for name in described if name.lower().endswith(".json")}
    return stems | {name.casefold(): name for name in described}


def day_beside(data: bytes, zone: int | None = None) -> date | None:
    """Reads a day from XMP or a Google Takeout's JSON beside a photo; zone: its minutes, else by the JSON's place."""
    if match := _IN_TAKEOUT.search(data):
        if zone is None and (place := _IN_GEODATA.search(data)):
            zone = zone_at(float(place[1]))
        return _day_of_seconds(int(match[1]), zone)
    return day_in_xmp(data)


def day_in_path(path: str) -> date | None:
    """Reads the day from a photo's name, as phones, messengers and scanners write it, or from its folders' names:
    ``IMG_20150615_101112.jpg``, ``FB_IMG_1434364272000.jpg``, ``15.06.2015.jpg``, ``2015-06-15 Wedding/1.jpg``.
    """
    *folders, name = path.split("/")
    if day := _day_in_name(name):
        return day
    for folder in reversed(folders):
        # "2020-05-01 backup" is rare, and "takeout-20200501" is not.
        begin = _IN_NAME.match(folder) or _DAY_FIRST.match(folder)
        if begin and (day := _day_in_name(begin[0])):
            return day
    match = _IN_FOLDERS.search(path)
    return _possible(*match.groups()) if match else None


def _day_in_name(name: str) -> date | None:
    for match in _IN_NAME.finditer(name):
        if day := _possible(match[1], match[3], match[4]):
            return day
    for match in _DAY_FIRST.finditer(name):
        days = {_possible(match[4], match[3], match[1]), _possible(match[4], match[1], match[3])} - {None}
        if match[2] == "." or len(days) == 1:
            return _possible(match[4], match[3], match[1]) or days.pop()
    return next(filter(None, (_day_of_seconds(int(match[1]) // 1000) for match in _MILLISECONDS.finditer(name))), None)


def _day_of_seconds(seconds: int, zone: int | None = None) -> date | None:
    with suppress(OverflowError, ValueError, OSError):
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, minutes=zone or 0)
        # Without a zone, that of this machine is likely; the times of files are read by it, too.
        return _possible(*(moment.astimezone() if zone is None else moment).date().isoformat().split("-"))
    return None


def _day(text: object) -> date | None:
    match = _DAY.match(text) if isinstance(text, str) else None
    return _possible(*match.groups()) if match else None


def _possible(*numbers: str) -> date | None:
    with suppress(ValueError):
        day, today = date(*map(int, numbers)), date.today()
        # In the time zone of the photo it may be tomorrow already.
        if day.year >= _FIRST_YEAR and (day <= today + timedelta(days=1) or today < _FIRST_TODAY):
            return day
    return None


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
            time = next((match[1] for moment in moments if (match := _TIME.match(str(moment)))), None)
        maker, model = (_name(exif.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        # Most models begin with their maker: Canon, Canon EOS 5D.
        named = not maker or (model or "").lower().startswith(maker.split()[0].lower())
        camera = model if named else " ".join(filter(None, (maker, model)))
        lens = _name(inner.get(ExifTags.Base.LensModel))
    return Recorded(width, height, time, camera, lens)


def _name(value: object) -> str | None:
    """Returns a name of printable characters, None if there is none."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_NAME] or None

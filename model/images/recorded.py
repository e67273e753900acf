"""Finds what is recorded of a photo: its day, in its file, in files beside it, and in its name; time and camera."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import mktime_tz, parsedate, parsedate_tz
from typing import NamedTuple, cast

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from sketch_search.model.limits import FIRST_YEAR

_DAY = re.compile(r"\s*(\d{4})[:/.-](\d\d)[:/.-](\d\d)(?!\d)", re.ASCII)
# EXIF has blanks for what is not known.
_HALF_DAY = re.compile(r"\s*(\d{4})(?:[:/.-](\d\d|  )(?:[:/.-]  )?)?(?=[\sT\0]|$)", re.ASCII)
# IMG_20150615_101112, PXL_20150615_..., IMG-20150615-WA0007, 2015-06-15 10.11.12, IMG_20150615101112.
_IN_NAME = re.compile(
    r"(?<!\d)((?:18|19|20)\d\d)([-_. ]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])"
    r"(?=(?:(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?:\d{3})?)?(?!\d))",
    re.ASCII,
)
# 15.06.2015; with other signs, as in 15-06-2015 or 06-15-2015, only if there is one way to read it.
_DAY_FIRST = re.compile(r"(?<!\d)(\d\d)([-_. ])(\d\d)\2((?:18|19|20)\d\d)(?!\d)", re.ASCII)
# 1965-07, 1965-07-00 and 1965-00-00, but neither DSC_1965-07 nor 1965-07-45.
_MONTH_IN_NAME = re.compile(r"(?<![\w.-])((?:18|19|20)\d\d)([-_.])(0\d|1[0-2])(?:\2(00))?(?!\d|\2\d\d(?!\d))", re.ASCII)
# FB_IMG_1434364272000, mmexport1434364272000: milliseconds since 1970.
_MILLISECONDS = re.compile(
    r"(?:FB_IMG_|received_|mmexport|wx_camera_|IMG_|image_|photo_|screenshot_)(1\d{12})(?!\d)", re.ASCII | re.IGNORECASE
)
# Folders that programs make for each day, month or year: 2015/06/15, 2015/06 June, 2015.
_NAMED = r"(?:[ _-]+[^\W\d][^/]*)?"
_IN_FOLDERS = re.compile(rf"((?:18|19|20)\d\d){_NAMED}(?:/(\d\d){_NAMED}(?:/(\d\d))?)?(?:/|$)")
# What Dropbox, Nextcloud, Syncthing and others add to the name of a copy, in their languages, with the conflict's day.
_CONFLICTING = re.compile(
    r"\s*[(\[][^()\[\]]*(?:conflict|conflit|konflikt|конфликт|競合|冲突|衝突|충돌)[^()\[\]]*[)\]]"
    r"|[._-](?:sync-)?conflict-\d{8}-\d{6}[^.]*",
    re.IGNORECASE,
)
# The names that XMP has for the day, the best first; as an attribute or an element, by any prefix.
_IN_XMP = [
    re.compile(rb"\b[\w-]{1,40}:" + name + rb"\s{0,9}(?:=\s{0,9}[\"']|>)\s{0,99}(\d{4}(?:-\d\d){0,2})(?![\d-])")
    for name in (b"DateTimeOriginal", b"DateCreated", b"DateTimeDigitized", b"CreateDate")
]
_IN_TAKEOUT = re.compile(rb'"photoTakenTime"\s{0,99}:\s{0,99}\{\s{0,99}"timestamp"\s{0,99}:\s{0,99}"(-?\d{1,15})"')
# Google's Takeout cuts the names of these files, and writes that of "IMG(1).jpg" as "IMG.jpg(1).json".
_TAKEOUT, _LONGEST_IN_TAKEOUT = (".supplemental-metadata", ""), 46
_NUMBERED = re.compile(r"(.+)(\(\d{1,9}\))(\.[^.]*)")
_IN_GEODATA = re.compile(rb'"longitude"\s{0,99}:\s{0,99}(-?\d{1,3}(?:\.\d{1,20})?)')
# iCloud's export has a table of all photos of a folder, with moments such as "Monday June 15,2015 10:11 AM GMT".
_ICLOUD = re.compile(r"photo details.*\.csv")
_IN_ICLOUD = re.compile(rb"([A-Z][a-z]{2})[a-z]* (\d\d?), ?(\d{4}) (\d\d?):(\d\d)(?: ([AP])M)? GMT")
# An edited copy has no file beside it: IMG_1-edited.jpg, IMG_1-bearbeitet(1).jpg, whatever the language.
_EDITED = re.compile(r"(.+)-[^-.()]+((?:\(\d{1,9}\))?)(\.[^.]*)")
_GPS_WEST, _GPS_LONGITUDE, _GPS_TIME, _GPS_DAY = 3, 4, 7, 29
_OFFSETS = (0x9011, 0x9010, 0x9012)
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
# A computer whose clock is before this day was never set, for example without a battery for its clock.
_FIRST_TODAY = date(2024, 1, 1)
# The most bytes of XMP to search.
_MAX_XMP = 1 << 20
_TIME = re.compile(r"\s*\d{4}[:/.-]\d\d[:/.-]\d\d[ T]((?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?)", re.ASCII)
# A longer name is no camera's.
_LONGEST_NAME = 100


class Day(NamedTuple):
    """The day of a photo. If only its month or its year is known, day, or day and month, are 0."""

    year: int
    month: int = 0
    day: int = 0

    @property
    def number(self) -> float:
        """The day's ordinal; if only the month or the year is known, that of its first day, and 0.25 or 0.5."""
        return date(self.year, self.month or 1, self.day or 1).toordinal() + (not self.day) / 4 + (not self.month) / 4

    @classmethod
    def of(cls, number: float) -> "Day":
        first, unknown = date.fromordinal(int(number)), number % 1
        return cls(first.year, first.month if unknown < 0.5 else 0, 0 if unknown else first.day)

    def __str__(self) -> str:
        return "-".join(f"{part:02}" for part in self if part)


def best_day(days: Iterable[Day | None]) -> Day | None:
    """Returns the first day; of one that is half known, the first after it that says more and does not contradict."""
    best = None
    for day in filter(None, days):
        best = day if best is None or all(part in (0, other) for part, other in zip(best, day, strict=True)) else best
        if best.day:
            break
    return best


def day_in_file(picture: Image.Image) -> Day | None:
    """Reads the camera's day from what a picture's file says of it, the best source first; None if none does."""
    return best_day(day for source in _SOURCES for day in source(picture))


def _in_exif(picture: Image.Image) -> Iterator[Day | None]:
    with suppress(Exception):  # Cameras and editors write EXIF that no parser expects.
        exif = picture.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime):
            yield from (_day(block.get(tag)) for block in (inner, exif))


def _in_xmp(picture: Image.Image) -> Iterator[Day | None]:
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    yield from _days_in_xmp(xmp.encode() if isinstance(xmp, str) else xmp)


def _in_iptc(picture: Image.Image) -> Iterator[Day | None]:
    """Yields the days of IPTC's DateCreated and DigitalCreationDate, such as 20150615 or 19650000."""
    with suppress(Exception):
        iptc = IptcImagePlugin.getiptcinfo(cast(ImageFile.ImageFile, picture)) or {}
        for field in ((2, 55), (2, 62)):
            value = iptc.get(field, b"")
            text = (value if isinstance(value, bytes) else value[0]).decode("ascii")
            yield _day("-".join(filter(None, (text[:4], text[4:6], text[6:8]))))


def _in_png(picture: Image.Image) -> Iterator[Day | None]:
    text = next((value for name, value in picture.info.items() if str(name).lower() == "creation time"), None)
    with suppress(Exception):
        yield _day(text) or _possible(*map(str, (parsedate(str(text)) or ())[:3]))


def _in_gps(picture: Image.Image) -> Iterator[Day | None]:
    with suppress(Exception):
        places = picture.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        day = _day(places.get(_GPS_DAY))
        # Satellites have the time of Greenwich.
        if day and day.day and (zone := zone_in_file(picture)) is not None:
            hours, minutes = map(float, places[_GPS_TIME][:2])
            here = datetime(*day) + timedelta(hours=hours, minutes=minutes + zone)
            day = Day(here.year, here.month, here.day)
        yield day


_SOURCES: tuple[Callable[[Image.Image], Iterator[Day | None]], ...] = (_in_exif, _in_xmp, _in_iptc, _in_png, _in_gps)


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


def _days_in_xmp(xmp: bytes) -> Iterator[Day | None]:
    matches = (name.search(xmp, 0, _MAX_XMP) for name in _IN_XMP)
    yield from (_day(match[1].decode()) for match in matches if match)


def files_beside(name: str, described: Mapping[str, str]) -> list[str]:
    """Lists the files beside a photo that may say its day, the best first, of those that ``beside`` has."""
    listed = list[str]()
    original = _CONFLICTING.sub("", name)
    edited = _EDITED.fullmatch(original)
    for whole in dict.fromkeys((name, original, edited[1] + edited[2] + edited[3] if edited else name)):
        stem, names = whole.rpartition(".")[0] or whole, [(whole, "")]
        if numbered := _NUMBERED.fullmatch(whole):
            names.insert(0, (numbered[1] + numbered[3], numbered[2]))
        listed += [f"{base}.xmp" for base in (whole, stem)] + [f"{whole}{ending}.json" for ending in _TAKEOUT]
        cut = ((base + ending, number) for base, number in names for ending in _TAKEOUT)
        listed += [f"{base[:_LONGEST_IN_TAKEOUT]}{number}.json" for base, number in cut]
    # The original of an edited copy may be of another type.
    keys = map(str.casefold, [*listed, f"{edited[1]}."] if edited else listed)
    tables = sorted(filter(_ICLOUD.fullmatch, described))
    return [described[key] for key in dict.fromkeys([*keys, *tables]) if key in described]


def beside(names: Iterable[str]) -> dict[str, str]:
    """Maps keys for ``files_beside`` to the names of a folder's files, which may be of other case."""
    described = [name for name in names if name.lower().endswith((".xmp", ".json", ".csv"))]
    stems = {f"{name.partition('.')[0].casefold()}.": name for name in described if name.lower().endswith(".json")}
    return stems | {name.casefold(): name for name in described}


def day_beside(data: bytes, zone: int | None = None, name: str = "") -> Day | None:
    """Reads a day from a file beside a photo of this name: XMP, Google Takeout's JSON, or iCloud's table.

    zone: the minutes of the photo's clock ahead of Greenwich, else by the JSON's place, else this machine's.
    """
    if match := _IN_TAKEOUT.search(data):
        if zone is None and (place := _IN_GEODATA.search(data)):
            zone = zone_at(float(place[1]))
        return _day_of_seconds(int(match[1]), zone)
    row = (
        re.search(rb'^"?' + re.escape(name.encode(errors="replace")) + rb'"?,.*', data, re.MULTILINE) if name else None
    )
    if row and (match := _IN_ICLOUD.search(row[0])):
        month, day, year, hour, minute, half = (part.decode() for part in match.groups(b""))
        hour = f"{int(hour) % 12 + 12 * (half == 'P')}" if half else hour
        moment = parsedate_tz(f"{day} {month} {year} {hour}:{minute}:00 +0000")
        return _day_of_seconds(int(mktime_tz(moment)), zone) if moment else None
    return best_day(_days_in_xmp(data))


def day_in_path(path: str) -> Day | None:
    """Reads the day from a photo's name, as phones, messengers and scanners write it, or from its folders' names:
    ``IMG_20150615_101112.jpg``, ``FB_IMG_1434364272000.jpg``, ``15.06.2015.jpg``, ``2015-06-15 Wedding/1.jpg``,
    ``1965-07.jpg``, ``1965/07/1.jpg``.
    """
    return best_day(_days_in_path(path))


def _days_in_path(path: str) -> Iterator[Day | None]:
    *folders, name = path.split("/")
    name = _CONFLICTING.sub("", name)
    yield _day_in_name(name)
    yield from _months(_MONTH_IN_NAME.search(name))
    for folder in reversed(folders):
        # "2020-05-01 backup" is rare, and "takeout-20200501" is not.
        begin = _IN_NAME.match(folder) or _DAY_FIRST.match(folder)
        yield _day_in_name(begin[0]) if begin else None
        yield from _months(_MONTH_IN_NAME.match(folder))
    for last in reversed(range(len(folders))):
        if match := _IN_FOLDERS.match("/".join(folders[last:])):
            yield from (_possible(*(part or "0" for part in match.groups())), _possible(match[1]))


def _months(match: re.Match[str] | None) -> Iterator[Day | None]:
    if match:
        yield _possible(match[1], match[3], "0")


def _day_in_name(name: str) -> Day | None:
    for match in _IN_NAME.finditer(name):
        if day := _possible(match[1], match[3], match[4]):
            return day
    for match in _DAY_FIRST.finditer(name):
        days = {_possible(match[4], match[3], match[1]), _possible(match[4], match[1], match[3])} - {None}
        if match[2] == "." or len(days) == 1:
            return _possible(match[4], match[3], match[1]) or days.pop()
    return next(filter(None, (_day_of_seconds(int(match[1]) // 1000) for match in _MILLISECONDS.finditer(name))), None)


def _day_of_seconds(seconds: int, zone: int | None = None) -> Day | None:
    with suppress(OverflowError, ValueError, OSError):
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, minutes=zone or 0)
        # Without a zone, that of this machine is likely; the times of files are read by it, too.
        return _possible(*(moment.astimezone() if zone is None else moment).date().isoformat().split("-"))
    return None


def _day(text: object) -> Day | None:
    match = (_DAY.match(text) or _HALF_DAY.match(text)) if isinstance(text, str) else None
    return _possible(*((part or "").strip() or "0" for part in match.groups())) if match else None


def _possible(year: str, month: str = "0", day: str = "0") -> Day | None:
    with suppress(ValueError):
        known = Day(int(year), int(month), int(day) if int(month) else 0)
        first, today = date(known.year, known.month or 1, known.day or 1), date.today()
        # In the time zone of the photo it may be tomorrow already.
        # A camera whose clock was never set may record the year 0.
        if known.year >= FIRST_YEAR and (first <= today + timedelta(days=1) or today < _FIRST_TODAY):
            return known
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

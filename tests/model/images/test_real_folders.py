"""Files as real folders hold them are read as viewers show them: damaged ones, odd TIFFs, other dates and colours."""

import io
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, features
from PIL.PngImagePlugin import PngInfo

from sketch_search.model.decoding import Decoders, Job
from sketch_search.model.errors import BlankSketch, ImageTooLarge, UndecodableImage, UnsupportedImage
from sketch_search.model.images import LargeFile, Preprocessing, files, open_dated
from sketch_search.model.images.recorded import Day, day_beside, day_in_path
from tests.pictures import difference, drawing, encoded, photo

CASES = Path(__file__).parents[2] / "cases"
PHOTO = photo("house", 256)
# What programs that sync add to a name when two computers changed the file.
CONFLICTS = (
    *(" (Anna's conflicted copy 2024-03-01)", " (conflicted copy 2024-03-01 101112)", " [Konflikt 2024-03-01]"),
    *(".sync-conflict-20240301-101112-ABCDEFG", "_conflict-20240301-101112", " (SFConflict a@b.c 2024-03-01-10-11-12)"),
)
NEEDS_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
DAY, MONTH = Day(2015, 6, 15), Day(1965, 7)


def jpeg(**options: object) -> bytes:
    return encoded(PHOTO, "JPEG", quality=90, **options)


def _in_scan(data: bytes, inserted: bytes) -> bytes:
    at = data.index(b"\xff\xda") + 4000
    return data[:at] + inserted + data[at:]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png_with(chunk: bytes, before: bytes) -> bytes:
    data = encoded(PHOTO)
    at = data.index(before) - 4
    return data[:at] + chunk + data[at:]


def _interlaced() -> bytes:
    """A grey PNG in the seven passes of Adam7; the last rows of the last pass are cut off."""
    pixels, raw = np.asarray(PHOTO.convert("L")), b""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    for x, y, across, down in steps:
        raw += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::across])
    header = struct.pack(">IIBBBBB", 256, 256, 8, 0, 0, 0, 1)
    return (encoded(PHOTO)[:8] + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(raw)))[:-5000]


_LONG = b"Comment\0\0" + zlib.compress(bytes(2 << 20))
# The name of a damaged file, the file, and the greatest difference that it may have from the whole picture.
DAMAGED: dict[str, tuple[Callable[[], bytes], float]] = {
    "without end.jpg": (lambda: jpeg()[:-2], 0.1),
    "last percent missing.jpg": (lambda: jpeg()[: -len(jpeg()) // 100], 4),
    "zeros at the end.jpg": (lambda: jpeg()[: len(jpeg()) * 3 // 4].ljust(len(jpeg()) * 4 // 5, b"\0"), 30),
    "progressive, cut.jpg": (lambda: jpeg(progressive=True)[: -len(jpeg()) // 10], 4),
    "stray marker.jpg": (lambda: _in_scan(jpeg(), b"\xff\x19"), 0.1),
    "second start.jpg": (lambda: _in_scan(jpeg(), b"\xff\xd8\xff\xe0"), 0.1),
    "end after a segment.jpg": (lambda: jpeg()[:-2] + b"\xff\x19\xff\xfe\x00\x04ab\xff", 0.1),
    "another picture after a cut.jpg": (lambda: jpeg()[:-400] + encoded(Image.new("RGB", (64, 64)), "JPEG"), 4),
    "last twentieth missing.png": (lambda: encoded(PHOTO)[: -len(encoded(PHOTO)) // 20], 15),
    "interlaced, last rows missing.png": (_interlaced, 40),
    "last twentieth missing.gif": (lambda: encoded(PHOTO, "GIF", interlace=0)[:-1500], 25),
    "last twentieth missing.webp": (lambda: encoded(PHOTO, "WEBP", quality=90)[:-600], 20),
    "long text.png": (lambda: _png_with(_chunk(b"zTXt", _LONG), b"IDAT"), 0),
    "long text behind.png": (lambda: _png_with(_chunk(b"zTXt", _LONG), b"IEND"), 0),
    "long profile.png": (lambda: _png_with(_chunk(b"iCCP", _LONG), b"IDAT"), 0),
    "wrong checksum of a comment.png": (lambda: _png_with(_chunk(b"tEXt", b"a\0b")[:-1] + b"?", b"IDAT"), 0),
    "wrong checksum of the pixels.png": (lambda: _wrong_sum(), 0),
}


def _wrong_sum() -> bytes:
    """A PNG whose packed pixels end with a wrong Adler-32, under a right CRC."""
    data = encoded(Image.fromarray(np.asarray(PHOTO)))
    at, packed = 8, b""
    chunks = []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        packed += body if name == b"IDAT" else b""
        chunks += [] if name == b"IDAT" else [_chunk(name, body)]
        at += 12 + length
    return data[:8] + b"".join([*chunks[:-1], _chunk(b"IDAT", packed[:-4] + b"\0\0\0\0"), chunks[-1]])


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_that_viewers_show_is_opened_and_called_incomplete(name: str, decoders: Decoders) -> None:
    make, most = DAMAGED[name]
    opened = open_dated(make())
    whole = open_dated(jpeg()).image if name.endswith("jpg") else PHOTO
    assert difference(opened.image, whole.convert("L").convert("RGB") if "interlaced" in name else whole) <= most
    sound = name.endswith("png") and "missing" not in name
    assert opened.incomplete is not sound
    assert decoders.run(make(), Job()) == opened


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_file_of_which_most_is_missing_is_refused(kind: str) -> None:
    data = encoded(PHOTO, kind)
    with pytest.raises(UndecodableImage, match="damaged"):
        open_dated(data[: len(data) * 2 // 5])


def test_the_reason_for_a_damaged_file_shows_no_bytes_of_it() -> None:
    with pytest.raises(UndecodableImage, match=r"^the PNG file is damaged: its header cannot be read$") as refused:
        open_dated(encoded(PHOTO).replace(b"IDAT", b"I\xf4\xf4T"))
    assert r"b'I\xf4\xf4T'" in str(refused.value.__cause__)


RGB16 = np.asarray(PHOTO).astype(np.uint16) * 257
GREY16 = np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257
TIFFS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "16 bits, plane by plane": (RGB16.transpose(2, 0, 1), {"planarconfig": "separate", "photometric": "rgb"}),
    "the same in strips": (
        RGB16.transpose(2, 0, 1),
        {"planarconfig": "separate", "photometric": "rgb", "rowsperstrip": 16},
    ),
    "the same, big-endian and packed": (
        RGB16.transpose(2, 0, 1),
        {"planarconfig": "separate", "photometric": "rgb", "compression": "zlib", "byteorder": ">"},
    ),
    "16 bits, white is zero": (65535 - GREY16, {"photometric": "miniswhite"}),
    "32-bit floats": (RGB16.astype(np.float32) / 65535, {"photometric": "rgb"}),
    "16-bit floats, packed": (
        (RGB16 / 65535).astype(np.float16),
        {"photometric": "rgb", "compression": "zlib", "predictor": False},
    ),
    "32-bit numbers": (RGB16.astype(np.uint32) * 65537, {"photometric": "rgb"}),
    "inks and transparency": (
        np.dstack(
            [255 - np.asarray(PHOTO), np.zeros_like(GREY16[..., None], np.uint8), 255 - 0 * GREY16.astype(np.uint8)]
        ),
        {"photometric": "separated", "extrasamples": ["unassalpha"]},
    ),
}


@pytest.mark.parametrize("name", TIFFS)
def test_every_kind_of_tiff_looks_as_it_should(name: str) -> None:
    values, options = TIFFS[name]
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    expected = PHOTO.convert("L").convert("RGB") if values.ndim == 2 else PHOTO
    assert difference(open_dated(stream.getvalue()).image, expected) < 1.5


def _paged(*pages: tuple[Image.Image, int], below: bool = False) -> bytes:
    """A TIFF of pages with these NewSubfileTypes, the second one in a directory below the first if ``below``."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for number, (page, kind) in enumerate(pages):
            inside = 1 if below and not number else None
            writer.write(np.asarray(page), photometric="rgb", subfiletype=kind, subifds=inside, metadata=None)
    return stream.getvalue()


SMALL = PHOTO.resize((64, 64))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (_paged((SMALL, 1), (PHOTO, 0)), PHOTO),
        (_paged((SMALL, 0), (PHOTO, 0)), PHOTO),
        (_paged((SMALL, 1), (PHOTO, 0), below=True), PHOTO),
        (_paged((PHOTO, 0), (SMALL, 1)), PHOTO),
        (_paged((PHOTO, 2), (photo("star", 260), 2)), PHOTO),
    ],
    ids=["a small copy first", "not called so", "in a directory below", "a small copy behind", "pages of a document"],
)
def test_the_picture_of_a_tiff_is_taken_and_not_its_small_copy(data: bytes, expected: Image.Image) -> None:
    assert difference(open_dated(data).image, expected) < 1


class _Watched(io.BytesIO):
    """A file that knows how far it was read."""

    reached = 0

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self.reached = max(self.reached, self.tell())
        return count


def test_a_tiff_is_read_as_far_as_its_pictures_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BEHIND", 1 << 10)
    lines = Image.new("L", (1, 1 << 17), "white")
    lines.paste("black", (0, 0, 1, 99_999))
    tiffs = [_paged((SMALL, 1), (PHOTO, 0), below=True), encoded(lines, "TIFF", tiffinfo={278: 1}), _raw()]
    for values, options in TIFFS.values():
        stream = io.BytesIO()
        tifffile.imwrite(stream, values, **options)
        tiffs.append(stream.getvalue())
    # As if the sizes of its strips were left out.
    tiffs.append(encoded(PHOTO, "TIFF").replace(struct.pack("<HH", 279, 4), struct.pack("<HH", 65_279, 4)))
    for data in tiffs:
        file = _Watched(data + b"\xff" * (4 << 20))
        assert open_dated(LargeFile(file)).image == open_dated(data).image
        assert 0 < file.reached < len(data) + (2 << 20)


def test_a_tiff_that_is_not_read_is_not_called_damaged() -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, RGB16.astype(np.float32), photometric="rgb")
    # As if it were packed by a method that nobody knows.
    data = stream.getvalue().replace(
        struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHIHH", 259, 3, 1, 50_001, 0)
    )
    with pytest.raises(UnsupportedImage, match=r"this kind of TIFF is not supported .*; save it with 8 or 16 bits"):
        open_dated(data)


def _raw() -> bytes:
    pytest.importorskip("rawpy")
    stream = io.BytesIO()
    # Red, green and blue under a filter of two by two.
    mosaic = np.tile(np.array([[60_000, 20_000], [20_000, 5_000]], np.uint16), (48, 64))
    filters = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, bytes((0, 1, 1, 2)), True)]
    camera = [(50706, "B", 4, bytes((1, 4, 0, 0)), True), (50708, "s", 0, "Camera", True)]
    matrix = [(50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True)]
    tifffile.imwrite(stream, mosaic, photometric="cfa", extratags=[*filters, *camera, *matrix], metadata=None)
    return stream.getvalue()


def test_a_raw_file_without_preview_is_developed_if_it_is_whole() -> None:
    data = _raw()
    opened = open_dated(data).image
    red, _, blue = np.asarray(opened, np.float64).mean(axis=(0, 1))
    assert (opened.size, red > blue) == ((64, 48), True)
    with pytest.raises(UndecodableImage):
        open_dated(data[:-1000])


_TAGS = ExifTags.Base
ORIGINAL, DIGITISED, CHANGED = _TAGS.DateTimeOriginal, _TAGS.DateTimeDigitized, _TAGS.DateTime
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:ModifyDate="2022-01-01" %s/></x:xmpmeta>'


def _said(inner: dict[int, object] | None = None, outer: dict[int, object] | None = None, xmp: bytes = b"") -> bytes:
    exif = Image.Exif()
    for tag, value in (outer or {}).items():
        exif[tag] = value
    if inner:
        exif[ExifTags.IFD.Exif] = inner
    return encoded(PHOTO, "JPEG", exif=exif, **({"xmp": xmp} if xmp else {}))


def _iptc(*fields: tuple[int, bytes]) -> bytes:
    inner = b"".join(struct.pack(">3BH", 0x1C, 2, number, len(text)) + text for number, text in fields)
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(inner)) + inner + bytes(len(inner) % 2)
    return b"\xff\xd8\xff\xed" + struct.pack(">H", len(block) + 2) + block + _said()[2:]


def _created(text: str) -> bytes:
    info = PngInfo()
    info.add_text("Creation Time", text)
    return encoded(PHOTO, "PNG", pnginfo=info)


TEXT = "2015:06:15 10:11:12"
ELEMENT = XMP.replace(b"/>", b"><photoshop:DateCreated>2015-06-15</photoshop:DateCreated></rdf:Description>")
WEST = {3: "W", 4: (118.0, 14.0, 0.0), 7: (5.0, 45.0, 0.0), 29: "2015:06:16"}


SAYING = {
    "original": _said({ORIGINAL: TEXT, DIGITISED: "2016:01:01 00:00:00"}, {CHANGED: "2017:01:01 00:00:00"}),
    "digitised": _said({DIGITISED: TEXT}, {CHANGED: "2017:01:01 00:00:00"}),
    "blanks": _said({ORIGINAL: "    :  :     :  :  ", DIGITISED: "0000:00:00 00:00:00"}, {CHANGED: TEXT}),
    "slashes": _said({ORIGINAL: "2015/06/15 10:11:12"}),
    "changed": _said(outer={CHANGED: TEXT}, xmp=XMP % b'exif:DateTimeOriginal="2018-01-01"'),
    "XMP": _said(xmp=XMP % b'xmp:CreateDate="2018-01-01" exif:DateTimeOriginal="2015-06-15T10:11:12"'),
    "an element of XMP": _said(xmp=ELEMENT % b""),
    "IPTC": _iptc((62, b"20190504"), (55, b"20150615")),
    "PNG": _created("Mon, 15 Jun 2015 23:11:12 +0000"),
    "ISO": _created("2015-06-15T10:11:12Z"),
    "GPS": _said(outer={ExifTags.IFD.GPSInfo: {29: "2015:06:15"}}),
    "GPS elsewhere": _said(outer={ExifTags.IFD.GPSInfo: WEST}),
}


@pytest.mark.parametrize("data", SAYING.values(), ids=SAYING.keys())
def test_the_day_is_the_first_that_a_file_says(data: bytes) -> None:
    assert open_dated(data).taken == DAY


@pytest.mark.parametrize(
    ("data", "day"),
    [
        *(
            (_said({ORIGINAL: text, DIGITISED: TEXT}), Day(1965))
            for text in ("1965:00:00 00:00:00", "1965:  :  ", "1965")
        ),
        *((_said({ORIGINAL: text}, {CHANGED: TEXT}), MONTH) for text in ("1965:07:00 00:00:00", "1965:07")),
        *((_said(xmp=XMP % b'exif:DateTimeOriginal="%s"' % text), Day(1965)) for text in (b"1965", b"1965-00-00")),
        (_said(xmp=XMP % b'xmp:CreateDate="2019-05-04" photoshop:DateCreated="1965-07"'), MONTH),
        (_iptc((55, b"19650700")), MONTH),
        (_said({ORIGINAL: "1965:00:00"}, xmp=XMP % b'exif:DateTimeOriginal="1965-07"'), MONTH),
        (_said({ORIGINAL: "1965:00:00"}, xmp=XMP % b'exif:DateTimeOriginal="1966-07-01"'), Day(1965)),
        (_said({ORIGINAL: "1965:13:00"}), None),
    ],
)
def test_a_day_that_is_half_known_stays_so_unless_another_source_completes_it(data: bytes, day: Day | None) -> None:
    opened = open_dated(data)
    assert (opened.taken, opened.recorded and opened.recorded.time) == (day, None)
    assert day is None or Day.of(day.number) == day


@pytest.mark.parametrize(
    ("name", "day"),
    [
        *((name, DAY) for name in ("IMG_20150615_101112.jpg", "PXL_20150615_081112345.jpg", "IMG-20150615-WA0007.jpg")),
        *(
            (name, DAY)
            for name in ("2015-06-15 10.11.12.jpg", "Scan 2015.06.15.png", "Screenshot_2015-06-15-10-11.png")
        ),
        *((name, None) for name in ("IMG_0615.jpg", "20151315_1.jpg", "1434360000123.jpg", "DSC_2015-06.jpg")),
        *((name, None) for name in ("120150615.jpg", "IMG_20980615.jpg", "2015-0615.jpg")),
        *(
            (name, DAY)
            for name in ("IMG_20150615101112.jpg", "20150615101112345.jpg", "15.06.2015.jpg", "06-15-2015.jpg")
        ),
        *((f"{app}1434364272000.jpg", DAY) for app in ("FB_IMG_", "received_", "mmexport")),
        *((name, DAY) for name in ("2015-06-15 Wedding/IMG_1.jpg", "15.06.2015/a/b.jpg", "2015/06/15/IMG_1.jpg")),
        *((name, None) for name in ("05-06-2015.jpg", "received_10153456789012345.jpg", "IMG_20150615991112.jpg")),
        *((name, None) for name in ("takeout-20150615T000000Z-001/a.jpg", "IMG_2015/06/a.jpg")),
        ("05.06.2015 garden.jpg", Day(2015, 6, 5)),
        *((name, MONTH) for name in ("1965-07.jpg", "Anna 1965_07 (3).jpg", "1965/07/1.jpg", "1965/07 July/a/1.jpg")),
        *((name, Day(1965)) for name in ("1965-00-00.jpg", "1965/1.jpg", "1965 Italy/a/1.jpg", "1965/13/1.jpg")),
        *((name, Day(1895, 7, 4)) for name in ("1895-07-04.jpg", "04.07.1895.jpg", "1895/07/04/1.jpg")),
        *((name, None) for name in ("1825-07-04.jpg", "1965-45.jpg", "1920x1080/1.jpg", "2015-16/1.jpg")),
        ("1965-07/1965-07-04/1.jpg", Day(1965, 7, 4)),
        *((f"IMG_20150615_101112{conflict}.jpg", DAY) for conflict in CONFLICTS),
        *((f"garden{conflict}.jpg", None) for conflict in CONFLICTS),
    ],
)
def test_a_file_s_name_may_say_its_day(name: str, day: Day | None) -> None:
    assert day_in_path(name) == day


def test_a_jpeg_xl_says_its_day_and_is_turned_once() -> None:
    pytest.importorskip("pillow_jxl")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ORIGINAL] = TEXT
    for said in ({"exif": exif.tobytes()}, {"xmp": XMP % b'exif:DateTimeOriginal="2015-06-15"'}):
        for packed in (False, True):
            opened = open_dated(encoded(PHOTO.resize((64, 48)), "JXL", compress_metadata=packed, **said))
            assert (opened.taken, opened.image.size) == (DAY, (64, 48))
    turned = open_dated((CASES / "63_photo_jxl_turned_in_codestream_and_exif.jxl").read_bytes()).image
    assert turned.size == (240, 160)


def _by_pq(kind: str) -> bytes:
    """A picture whose values are light by PQ, in BT.2020, in a file that says so."""
    png = (CASES / "83_photo_hdr_pq.png").read_bytes()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if kind == "PNG":
        return png
    if kind == "AVIF":
        return encoded(picture, "AVIF", quality=99, subsampling="4:4:4").replace(b"nclx\0\x01\0\r", b"nclx\0\x09\0\x10")
    heif, stream = pytest.importorskip("pillow_heif"), io.BytesIO()
    deep = (np.asarray(picture).astype(np.uint16) * 257).tobytes()
    codes = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9, "full_range_flag": 1}
    heif.from_bytes("RGB;16", picture.size, deep).save(stream, quality=95, **codes)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "HEIC", pytest.param("AVIF", marks=NEEDS_AVIF)])
def test_light_beyond_that_of_paper_is_shown_as_on_other_screens(kind: str) -> None:
    expected = Image.open(CASES / "83_what_it_should_look_like.png").convert("RGB")
    assert difference(open_dated(_by_pq(kind)).image, expected) < 4


def test_a_moment_without_a_zone_is_of_the_day_that_it_was_here(monkeypatch: pytest.MonkeyPatch) -> None:
    # 05:45 of the 16th in Greenwich.
    taken = b'{"photoTakenTime": {"timestamp": "1434433500"}}'
    for zone, day in (("WEST8", DAY), ("UTC0", Day(2015, 6, 16))):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert day_beside(taken) == day_in_path("FB_IMG_1434433500000.jpg") == day
        assert day_beside(taken, zone=-480) == DAY
    monkeypatch.undo()
    time.tzset()


def test_colours_are_those_that_the_profile_says() -> None:
    wide, plain = (
        (CASES / name).read_bytes() for name in ("14_jpeg_wide_gamut_profile.jpg", "14_same_picture_in_srgb.jpg")
    )
    assert difference(open_dated(wide).image, open_dated(plain).image) < 4
    profile = Image.open(io.BytesIO(wide)).info["icc_profile"]
    turned = encoded(Image.open(io.BytesIO(wide)).convert("RGBA"), icc_profile=profile)
    assert difference(open_dated(turned).image, open_dated(plain).image) < 4
    # One that is damaged, or of other colours, is passed over.
    for other in (b"nonsense", profile[:300], profile.replace(b"RGB ", b"CMYK", 1)):
        assert open_dated(encoded(PHOTO, icc_profile=other)).image == PHOTO


def test_an_orientation_in_xmp_alone_turns_nothing_as_in_browsers() -> None:
    data = encoded(PHOTO.crop((0, 0, 256, 128)), "JPEG", xmp=XMP % b'tiff:Orientation="6"')
    assert open_dated(data).image.size == (256, 128)


def _large(kind: str) -> bytes:
    return encoded(PHOTO.resize((1600, 1200)), kind)


def test_a_jpeg_that_is_too_large_is_decoded_smaller_and_others_say_the_setting() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_dated(_large("JPEG"), max_pixels=500_000, sketch=True).image.size == (800, 600)
        assert open_dated(_large("JPEG"), max_pixels=500_000, least_side=150).image.size == (200, 150)
        for side in (9_500, 14_000):
            with pytest.raises(ImageTooLarge, match=f"{side} x {side} pixels .* SKETCH_SEARCH_MAX_PIXELS"):
                open_dated(encoded(Image.new("1", (side, side))), max_pixels=50_000_000)


def test_a_photo_that_is_very_large_is_reduced_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.model.images.files._LARGE", 1_000_000)
    assert open_dated(_large("PNG"), least_side=300).image.size == (400, 300)
    assert open_dated(_large("PNG")).image.size == (1600, 1200)


def _strokes(*others: tuple[str, tuple[int, int, int, int]], ink: str = "white") -> Image.Image:
    sheet = Image.new("RGBA", (256, 256))
    sheet.paste(
        Image.new("RGBA", sheet.size, ink), mask=Image.eval(drawing("star").convert("L"), lambda level: 255 - level)
    )
    for colour, box in others:
        ImageDraw.Draw(sheet).ellipse(box, fill=colour)
    return sheet


@pytest.mark.parametrize("spot", [("red", (120, 20, 170, 50)), ("black", (0, 0, 12, 12)), ("white", (5, 5, 20, 20))])
def test_white_strokes_are_seen_beside_colour(spot: tuple[str, tuple[int, int, int, int]], decoders: Decoders) -> None:
    opened = open_dated(encoded(_strokes(spot)), sketch=True).image
    assert opened.getpixel((250, 250)) == (0, 0, 0)
    job = Job.preparing(Preprocessing(96), "sketch")
    assert (np.asarray(decoders.run(encoded(_strokes(spot)), job).image) < 128).sum() > 300


def test_black_lines_filled_with_white_are_seen_on_white() -> None:
    sheet = Image.new("RGBA", (256, 256))
    draw = ImageDraw.Draw(sheet)
    draw.ellipse((30, 30, 220, 220), fill="white", outline="black", width=4)
    draw.ellipse((90, 90, 120, 120), outline="black", width=4)
    assert open_dated(encoded(sheet), sketch=True).image.getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_one_of_its_frames(kind: str) -> None:
    blank, begun, drawn = Image.new("RGB", (256, 256), "white"), drawing("cross").resize((256, 256)), drawing("star")
    begun.paste("white", (0, 128, 256, 256))
    data = encoded(blank, kind, save_all=True, append_images=[begun, drawn, blank], duration=100)
    # The film of a drawing is searched for by the frame with most ink; a photo is the first frame that is not empty.
    assert difference(open_dated(data, sketch=True).image, drawn) < 2
    assert difference(open_dated(data).image, begun) < 2
    alone = encoded(blank, kind, save_all=True, append_images=[blank.copy()], duration=100)
    with pytest.raises(BlankSketch):
        Job.preparing(Preprocessing(96), "sketch").run(alone)


def test_jpeg_xl_is_read_if_its_package_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (CASES / "15_photo.jxl").read_bytes()
    with monkeypatch.context() as without:
        for name in ("pillow_jxl", "pillow_jxl.JpegXLImagePlugin"):
            without.setitem(__import__("sys").modules, name, None)
        with pytest.raises(UnsupportedImage, match=r"sketch-search\[jxl\]"):
            open_dated(data)
    pytest.importorskip("pillow_jxl")
    assert open_dated(data).image.size == (192, 128)

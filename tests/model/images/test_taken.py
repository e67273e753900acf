"""The day on which a photo was taken, read from real files."""

from __future__ import annotations

import io
import struct
from datetime import date, timedelta

import pytest
from PIL import Image, PngImagePlugin, features

from model.decoding import Decoders
from model.images import open_dated
from tests.pictures import ODD_FILES, dated, encoded, oriented, photo

DAY = date(2021, 5, 6)
TEXT = "2021:05:06 07:08:09"
KINDS = ["JPEG", "PNG", "WEBP", "TIFF", "MPO", *(["AVIF"] if features.check("avif") else [])]
PHOTO = photo("house", 96)


def with_block(block: bytes) -> bytes:
    """A JPEG file with these bytes for its EXIF."""
    plain = encoded(PHOTO, "JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + plain[2:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_day_is_read_from_every_type_of_file_and_however_it_is_turned(kind: str, orientation: int) -> None:
    opened = open_dated(dated(PHOTO, TEXT, kind, orientation))
    assert opened.taken == DAY
    turned = orientation == 6
    assert opened.image.size == ((PHOTO.height, PHOTO.width) if turned else PHOTO.size)


def test_a_heic_file_says_its_day() -> None:
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif.load(Image.open(io.BytesIO(dated(PHOTO, TEXT))).getexif().tobytes())
    stream = io.BytesIO()
    heif.from_pillow(PHOTO).save(stream, exif=exif.tobytes())
    assert open_dated(stream.getvalue()).taken == DAY


def test_another_process_says_the_same_day() -> None:
    with Decoders(1) as decoders:
        for data in (dated(PHOTO, TEXT), dated(PHOTO, "0000:00:00 00:00:00"), encoded(PHOTO, "JPEG")):
            assert decoders.open_dated(data, least_side=48, network_input=64).taken == open_dated(data).taken


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2021-05-06T07:08:09", DAY),
        ("2021:05:06", DAY),
        (" 2021:05:06 25:61:61", DAY),
        ("1839:08:19 12:00:00", date(1839, 8, 19)),
        ("0000:00:00 00:00:00", None),
        ("2021:13:06 07:08:09", None),
        ("2021:02:30 07:08:09", None),
        ("2021:05:061", None),
        ("    :  :     :  :  ", None),
        ("last summer", None),
        ("", None),
        ("1066:10:14 09:00:00", None),
        ("9999:12:31 23:59:59", None),
        ("۲۰۲۱:۰۵:۰۶ ۰۷:۰۸:۰۹", None),
        ("2021:05:06\0\0\0", DAY),
        (20210506, None),
        ((2021, 5, 6), None),
        (b"2021:05:06 07:08:09", None),
    ],
)
def test_a_day_that_cannot_be_is_none(text: object, day: date | None) -> None:
    assert open_dated(dated(PHOTO, text)).taken == day


def test_a_day_to_come_is_none_but_for_tomorrow_which_has_begun_elsewhere() -> None:
    today = date.today()
    for days, known in ((-1, True), (0, True), (3, False), (400, False)):
        day = today + timedelta(days)
        assert open_dated(dated(PHOTO, f"{day:%Y:%m:%d} 00:00:00")).taken == (day if known else None)


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_broken_blocks_say_no_day_and_the_picture_opens_all_the_same(byte_order: str) -> None:
    head = b"II*\0" if byte_order == "<" else b"MM\0*"

    def entries(*written: tuple[int, int, int, int], count: int | None = None) -> bytes:
        listed = b"".join(struct.pack(f"{byte_order}HHII", *entry) for entry in written)
        number = len(written) if count is None else count
        return head + struct.pack(f"{byte_order}IH", 8, number) + listed

    inner = 0x8769
    for block in (
        b"",
        b"nonsense",
        head,
        entries((inner, 4, 1, 0xFFFFFFF0)),  # an inner block outside of the file
        entries((inner, 4, 1, 8)),  # which is the outer one
        entries((inner, 2, 9, 0)),  # which is a text
        entries((0x9003, 2, 20, 0xFFFFFFF0)),
        entries((0x9003, 2, 20, 0), count=60_000),
    ):
        opened = open_dated(with_block(block))
        assert (opened.taken, opened.image.size) == (None, PHOTO.size)


def test_a_day_in_the_outer_block_counts_too() -> None:
    exif = Image.Exif()
    exif[0x9003] = TEXT
    assert open_dated(encoded(PHOTO, "JPEG", exif=exif)).taken == DAY


def test_a_text_of_a_png_file_is_no_day() -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("DateTimeOriginal", TEXT)
    assert open_dated(encoded(PHOTO, "PNG", pnginfo=note)).taken is None


def test_files_without_a_day_say_none() -> None:
    assert open_dated(oriented(PHOTO, 6)).taken is None
    for odd in ODD_FILES:
        if odd.error is None:
            assert open_dated(odd.data).taken is None

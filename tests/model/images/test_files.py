import io
import struct
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from PIL import Image, features

from sketch_search.model.decoding import Decoders, Job
from sketch_search.model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from sketch_search.model.images import IMAGE_SUFFIXES, Day, files, media_type, open_dated, open_image
from sketch_search.model.limits import MAX_PIXELS
from tests.pictures import (
    ODD_FILES,
    OddFile,
    dated,
    difference,
    dng,
    drawing,
    encoded,
    odd_file,
    oriented,
    photo,
    png,
    stored,
)
from tests.requirements import needs_shared_data
from tests.shared_data import archive


@pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: odd.name)
def test_an_odd_file_opens_as_rgb_or_raises_its_error_whatever_it_is_read_from(odd: OddFile, tmp_path: Path) -> None:
    path = tmp_path / odd.name
    path.write_bytes(odd.data)
    sources = (odd.data, bytearray(odd.data), io.BytesIO(odd.data), path, str(path))
    if odd.error is not None:
        for source in sources:
            with pytest.raises(odd.error) as raised:
                open_image(source)
            assert type(raised.value) is odd.error
            assert 10 < len(str(raised.value)) < 300
            assert str(tmp_path) not in str(raised.value)
        return
    picture, *others = [open_image(source) for source in sources]
    assert (picture.mode, picture.info) == ("RGB", {})
    assert np.asarray(picture).dtype == np.uint8
    # All files but large JPEGs are the same when reduced.
    assert all(other == picture for other in (*others, open_image(odd.data, least_side=500)))
    assert open_dated(odd.data).taken is None


HOUSES = (
    *("one bit.png", "transparent palette.png", "transparent value.png", "16 bits grey.png", "16 bits colour.png"),
    *("transparent.gif", "16 bits.tif", "12 bits in 16.tif", "16 bits big-endian.tif", "floats.tif", "cmyk.tif"),
    *("cmyk.jpg", "grey.jpg", "lab.tif", "lzw.tiff", "turned.tiff", "impossible orientation.jpg"),
)
TRANSPARENT = ("alpha.png", "grey and alpha.png", "alpha.webp")
FIRST_OF_SEVERAL = ("moving.gif", "moving.png", "moving.webp", "pages.tiff")


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (shape, name)
        for shape, names in (("house", HOUSES), ("star", TRANSPARENT), ("circle", FIRST_OF_SEVERAL))
        for name in names
    ],
)
def test_whatever_the_encoding_the_first_frame_is_shown_on_white(shape: str, name: str) -> None:
    assert difference(open_image(odd_file(name)), drawing(shape)) < 2.0


@pytest.mark.parametrize(("least", "size"), [(257, 512), (256, 256), (129, 256), (128, 128), (64, 64), (3, 64)])
def test_a_jpeg_comes_no_smaller_than_requested(least: int, size: int) -> None:
    data = encoded(photo("house", 512), "JPEG")
    reduced = open_image(data, least_side=least)
    assert (reduced.size, reduced.info) == ((size, size), {})
    assert difference(reduced, open_image(data).resize(reduced.size, Image.Resampling.BOX)) < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright_and_nothing_moves_in_a_reduced_jpeg(orientation: int) -> None:
    # Neither side is a multiple of four: the last of its pixels stand for one column and three rows of the whole.
    upright = photo("house", 1024).crop((0, 0, 513, 807)).resize((513, 807), Image.Resampling.BOX)
    data = oriented(upright, orientation)
    reduced, whole = open_image(data, least_side=128), open_image(data)
    assert difference(whole, upright) < 6.0
    assert reduced.size == (128, 202)
    last, expected = (np.asarray(p.resize((64, 64)), np.float64)[-4:, -4:] for p in (reduced, whole))
    assert np.abs(last - expected).mean() < 2.0


def test_damage_and_size_are_reported_of_a_reduced_jpeg_too() -> None:
    data = encoded(photo("house", 512), "JPEG")
    with pytest.raises(UndecodableImage, match="damaged"):
        open_image(data[: len(data) // 2], least_side=64)
    with pytest.raises(ImageTooLarge, match="512 x 512 pixels"):
        open_image(data, max_pixels=63 * 64, least_side=64)


def test_floating_point_values_may_have_any_range_and_gaps() -> None:
    values = np.linspace(-3.0, 40.0, 400, dtype=np.float32).reshape(20, 20)
    values[0, 0] = np.nan
    values[19, 19] = np.inf
    grey = np.asarray(open_image(encoded(Image.fromarray(values), "TIFF")))[:, :, 0]
    assert (grey[0, 0], grey[0, 1], grey[19, 18], grey[19, 19]) == (0, 0, 255, 255)


def test_the_header_alone_tells_a_picture_too_large() -> None:
    with pytest.raises(ImageTooLarge, match="65,535"):
        open_image(encoded(Image.new("L", (256, 256))), max_pixels=65_535)
    assert open_image(encoded(Image.new("L", (256, 256))), max_pixels=65_536).size == (256, 256)
    # Neither has the pixels that its header claims, and Pillow does not warn of them on a terminal.
    for side in (11_586, 60_000):
        assert side * side > MAX_PIXELS
        with pytest.raises(ImageTooLarge):
            open_image(png(np.zeros((1, 1), np.uint8), claims=(side, side)))


@pytest.mark.parametrize(
    ("package", "extra", "data"),
    [
        ("pillow_heif", "heic", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100)),
        ("rawpy", "raw", dng(encoded(photo("house"), "JPEG"))),
    ],
    ids=["heic", "raw"],
)
def test_a_missing_package_is_named(package: str, extra: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedImage, match=rf"sketch-search\[{extra}\]"):
        open_image(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_preview_of_a_raw_file_is_turned_as_the_camera_was(orientation: int) -> None:
    pytest.importorskip("rawpy")
    house = photo("house", 96).resize((96, 64))
    by_camera, both = encoded(stored(house, orientation), "JPEG", quality=95), oriented(house, orientation)
    # Cameras write it like this: EXIF comes first, and no JFIF before it.
    by_preview = both[:2] + both[both.index(b"\xff\xe1") :]
    previews = dng(by_camera, orientation=orientation), dng(by_preview, orientation=1), dng(by_preview, orientation=8)
    for data in previews:
        assert difference(open_image(data), house) < 8
    assert open_image(dng(stored(house, orientation), orientation=orientation)) == house


def test_a_raw_file_says_its_day() -> None:
    pytest.importorskip("rawpy")
    plain = encoded(PHOTO, "JPEG")
    assert open_dated(dng(plain, taken=TEXT)).taken == DAY
    assert open_dated(dng(plain)).taken is None


def test_the_preview_of_a_raw_file_has_the_limits_of_pictures() -> None:
    pytest.importorskip("rawpy")
    plain = encoded(PHOTO, "JPEG")
    with pytest.raises(ImageTooLarge, match="96 x 96 pixels"):
        open_image(dng(plain), max_pixels=11 * 12)
    assert open_image(dng(plain), least_side=24).size == (24, 24)
    # The values of the sensor are not decoded, whatever size its header promises.
    assert open_image(dng(plain, claims=(20_000, 10_000))).size == PHOTO.size
    with Decoders(1) as decoders:
        assert decoders.run(dng(plain), Job()).image == open_image(dng(plain))


def test_the_media_type_is_told_by_the_bytes() -> None:
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
        assert media_type(encoded(drawing("star"), kind.upper())) == f"image/{kind}"
    assert media_type(odd_file("plain.heic")) == "image/heic"
    assert media_type(dng(encoded(drawing("star"), "JPEG"))[:512]) == media_type(dng(b"")[:512]) == "image/x-dcraw"
    assert media_type(b"II*\0\x10\0\0\0CR\2\0") == media_type(b"\0\0\0\x18ftypcrx ") == "image/x-dcraw"
    assert media_type(b"RIFF\0\0\0\0WAVEfmt ") is None
    assert media_type(b"") is None


def test_a_raw_file_that_is_cut_short_shows_nothing_of_a_photo_opened_before() -> None:
    pytest.importorskip("rawpy")
    whole = dng(encoded(photo("house"), "JPEG"))
    opened, sensor = open_image(whole), 64 * 48 * 2
    assert opened.size == photo("house").size
    for missing in (1, 70, 1000, 5000):
        with pytest.raises(UndecodableImage):
            open_image(whole[: -sensor - missing])


@needs_shared_data
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_real_photo_opens_or_says_why() -> None:
    refused: Counter[type[ImageError]] = Counter()
    files = [path for path in sorted(archive("realphotos").rglob("*")) if path.is_file()]
    for path in files:
        try:
            assert open_image(path).mode == "RGB"
        except ImageError as error:
            refused[type(error)] += 1
    assert len(files) == 307
    # Among the 27 or so that plain Pillow does not open HEIC opens here, and ICO and PPM do not.
    assert refused == {UndecodableImage: 8, UnsupportedImage: 5, ImageTooLarge: 2}


def test_a_file_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 4096)

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 <= size <= 4096, "everything was asked for"
            return b"\x89PNG\r\n\x1a\n".ljust(size, b"0")

    with pytest.raises(ImageTooLarge, match="more than"):
        open_image(Endless())


DAY = Day(2021, 5, 6)
TEXT = "2021:05:06 07:08:09"
KINDS = ["JPEG", "PNG", "WEBP", "TIFF", "MPO", *(["AVIF"] if features.check("avif") else [])]
PHOTO = photo("house", 96)


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


NO_DAYS = "0000:00:00 00:00:00|2021:13:06 07:08:09|2021:02:30 07:08:09|2021:05:061|    :  :     :  :  ||last summer"
NO_DAYS += "|1066:10:14 09:00:00|9999:12:31 23:59:59|۲۰۲۱:۰۵:۰۶ ۰۷:۰۸:۰۹"


@pytest.mark.parametrize(
    ("text", "day"),
    [
        *((text, DAY) for text in ("2021-05-06T07:08:09", "2021:05:06", " 2021:05:06 25:61:61", "2021:05:06\0\0\0")),
        ("1839:08:19 12:00:00", Day(1839, 8, 19)),
        *((text, None) for text in (*NO_DAYS.split("|"), 20210506, (2021, 5, 6), b"2021:05:06 07:08:09")),
    ],
)
def test_a_day_that_cannot_be_is_none(text: object, day: Day | None) -> None:
    assert open_dated(dated(PHOTO, text)).taken == day


def test_a_day_to_come_is_none_but_for_tomorrow_which_has_begun_elsewhere() -> None:
    today = date.today()
    for days, known in ((-1, True), (0, True), (3, False), (400, False)):
        day = today + timedelta(days)
        assert open_dated(dated(PHOTO, f"{day:%Y:%m:%d} 00:00:00")).taken == (
            (*day.timetuple()[:3],) if known else None
        )


def test_a_clock_that_was_never_set_makes_no_day_one_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unset(date):
        @classmethod
        def today(cls) -> Self:
            return cls(1970, 1, 1)

    monkeypatch.setattr("sketch_search.model.images.recorded.date", Unset)
    assert open_dated(dated(PHOTO, "2023:06:15 00:00:00")).taken == Day(2023, 6, 15)


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
        opened = open_dated(encoded(PHOTO, "JPEG", exif=b"Exif\0\0" + block))
        assert (opened.taken, opened.image.size) == (None, PHOTO.size)


def test_a_day_in_the_outer_block_counts_too() -> None:
    exif = Image.Exif()
    exif[0x9003] = TEXT
    assert open_dated(encoded(PHOTO, "JPEG", exif=exif)).taken == DAY


def _psd(picture: Image.Image) -> bytes:
    """A PSD file without layers, which Pillow does not write."""
    head = struct.pack(">4sHxxxxxxHIIHH", b"8BPS", 1, 3, picture.height, picture.width, 8, 3)
    return head + struct.pack(">IIIH", 0, 0, 0, 0) + np.asarray(picture).transpose(2, 0, 1).tobytes()


@pytest.mark.parametrize("size", [(97, 61), (64, 200), (256, 256)])
@pytest.mark.parametrize(
    ("name", "write", "tolerance"),
    [
        ("scan.jp2", lambda picture: encoded(picture, "JPEG2000"), 1),
        ("stream.j2k", lambda picture: encoded(picture, "JPEG2000", no_jp2=True, irreversible=True), 3),
        ("grey.jp2", lambda picture: encoded(picture.convert("L"), "JPEG2000"), None),
        ("plain.tga", lambda picture: encoded(picture, "TGA"), 0),
        ("packed.tga", lambda picture: encoded(picture, "TGA", compression="tga_rle"), 0),
        ("transparent.tga", lambda picture: encoded(picture.convert("RGBA"), "TGA"), 0),
        ("grey.tga", lambda picture: encoded(picture.convert("L"), "TGA"), None),
        ("layers.psd", _psd, 0),
    ],
)
def test_scans_and_pictures_of_other_programs_are_opened(
    name: str, write: Callable[[Image.Image], bytes], tolerance: int | None, size: tuple[int, int]
) -> None:
    picture = photo("star").resize(size)
    data = write(picture)
    assert Path(name).suffix in IMAGE_SUFFIXES
    opened = open_image(data)
    assert (opened.mode, opened.size) == ("RGB", size)
    expected = picture.convert("L").convert("RGB") if tolerance is None else picture
    assert difference(opened, expected) <= (tolerance or 1)
    with pytest.raises(ImageTooLarge):
        open_image(data, max_pixels=1000)
    with pytest.raises(UndecodableImage):
        open_image(data[: len(data) // 8])


def test_other_files_are_not_taken_for_targa() -> None:
    icon, cursor = b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x18\0", b"\0\0\2\0\1\0\x20\x20"
    for start in (icon, cursor, b"\0\0\1\xba", b"", b"\0\0\0\x18ftypmp42"):
        assert media_type(start.ljust(64, b"\0")) is None

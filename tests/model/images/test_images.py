from __future__ import annotations

import io
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from model.images import files
from model.images.files import IMAGE_SUFFIXES, MAX_PIXELS, media_type, open_image
from tests.pictures import ODD_FILES, OddFile, drawing, encoded, odd_file, oriented, photo, png
from tests.requirements import needs_shared_data
from tests.shared_data import archive

by_name = pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: odd.name)


def difference(picture: Image.Image, other: Image.Image) -> float:
    assert picture.size == other.size
    return float(np.abs(np.asarray(picture, np.float64) - np.asarray(other, np.float64)).mean())


@by_name
def test_an_odd_file_opens_as_rgb_or_raises_its_error(odd: OddFile) -> None:
    if odd.error is not None:
        with pytest.raises(odd.error) as raised:
            open_image(odd.data)
        assert type(raised.value) is odd.error
        assert 10 < len(str(raised.value)) < 300
        return
    picture = open_image(odd.data)
    assert (picture.mode, picture.info) == ("RGB", {})
    assert np.asarray(picture).dtype == np.uint8


@by_name
def test_bytes_path_and_stream_give_the_same(odd: OddFile, tmp_path: Path) -> None:
    path = tmp_path / odd.name
    path.write_bytes(odd.data)
    if odd.error is not None:
        for source in (path, str(path), io.BytesIO(odd.data), bytearray(odd.data)):
            with pytest.raises(odd.error) as raised:
                open_image(source)
            assert str(tmp_path) not in str(raised.value)
        return
    whole = open_image(odd.data)
    for source in (path, str(path), io.BytesIO(odd.data), bytearray(odd.data)):
        assert open_image(source) == whole


@pytest.mark.parametrize(
    "name",
    [
        *("one bit.png", "transparent palette.png", "transparent value.png", "16 bits grey.png", "16 bits colour.png"),
        *("transparent.gif", "16 bits.tif", "12 bits in 16.tif", "16 bits big-endian.tif", "floats.tif", "cmyk.tif"),
        *("cmyk.jpg", "grey.jpg", "lab.tif", "lzw.tiff", "turned.tiff", "impossible orientation.jpg"),
    ],
)
def test_whatever_the_encoding_the_house_looks_the_same(name: str) -> None:
    assert difference(open_image(odd_file(name)), drawing("house")) < 2.0


@pytest.mark.parametrize("name", ["alpha.png", "grey and alpha.png", "alpha.webp"])
def test_transparency_becomes_white(name: str) -> None:
    assert difference(open_image(odd_file(name)), drawing("star")) < 1.0


@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "moving.webp", "pages.tiff"])
def test_of_several_frames_the_first_is_shown(name: str) -> None:
    assert difference(open_image(odd_file(name)), drawing("circle")) < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    upright = photo("house").crop((0, 0, 200, 256))
    assert difference(open_image(oriented(upright, orientation)), upright) < 6.0


@pytest.mark.parametrize(("least", "size"), [(257, 512), (256, 256), (129, 256), (128, 128), (64, 64), (3, 64)])
def test_a_jpeg_comes_no_smaller_than_asked_for(least: int, size: int) -> None:
    data = encoded(photo("house", 512), "JPEG")
    reduced = open_image(data, least_side=least)
    assert (reduced.size, reduced.info) == ((size, size), {})
    assert difference(reduced, open_image(data).resize(reduced.size, Image.Resampling.BOX)) < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_upright_and_nothing_in_it_moves(orientation: int) -> None:
    # Neither side is a multiple of four: the last of its pixels stand for one column and three rows of the whole.
    upright = photo("house", 1024).crop((0, 0, 513, 807)).resize((513, 807), Image.Resampling.BOX)
    data = oriented(upright, orientation)
    reduced, whole = open_image(data, least_side=128), open_image(data)
    assert (reduced.size, whole.size) == ((128, 202), (513, 807))
    last, expected = (np.asarray(p.resize((64, 64)), np.float64)[-4:, -4:] for p in (reduced, whole))
    assert np.abs(last - expected).mean() < 2.0


@by_name
def test_what_is_no_large_jpeg_is_the_same_reduced(odd: OddFile) -> None:
    if odd.opens:
        assert open_image(odd.data, least_side=500) == open_image(odd.data)


def test_damage_and_size_are_told_of_a_reduced_jpeg_too() -> None:
    data = encoded(photo("house", 512), "JPEG")
    with pytest.raises(UndecodableImage, match="damaged"):
        open_image(data[: len(data) // 2], least_side=64)
    with pytest.raises(ImageTooLarge):
        open_image(data, max_pixels=512 * 511, least_side=64)


def test_sixteen_bits_are_scaled_not_cut() -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(samples / 257).astype(np.uint8)
    for data in (png(samples), encoded(Image.fromarray(samples), "TIFF")):
        assert np.array_equal(np.asarray(open_image(data))[:, :, 0], expected)


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
    # Pillow warns of this one, and raises of the next; neither has the pixels that its header claims.
    for side in (9_460, 60_000):
        assert side * side > MAX_PIXELS
        with pytest.raises(ImageTooLarge):
            open_image(png(np.zeros((1, 1), np.uint8), claims=(side, side)))


def test_a_missing_file_and_a_folder_are_the_caller_s_affair(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "nothing.png")
    with pytest.raises(IsADirectoryError):
        open_image(tmp_path)


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnsupportedImage, match=r"sketch-search\[heic\]"):
        open_image(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100))


def test_opening_heic_does_not_change_pillow() -> None:
    open_image(odd_file("plain.heic"))
    assert "HEIF" not in Image.OPEN


def test_the_media_type_is_told_by_the_bytes() -> None:
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
        assert media_type(encoded(drawing("star"), kind.upper())) == f"image/{kind}"
    assert media_type(odd_file("plain.heic")) == "image/heic"
    assert media_type(b"RIFF\0\0\0\0WAVEfmt ") is None
    assert media_type(b"") is None


def test_suffixes_are_lower_case_and_begin_with_a_dot() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_threads_do_not_disturb_each_other() -> None:
    files = [odd for odd in ODD_FILES if odd.opens] * 3
    alone = [open_image(odd.data) for odd in files]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda odd: open_image(odd.data), files)) == alone


@settings(deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=20),
    st.integers(1, 4000),
)
def test_damage_of_any_kind_is_an_image_error_or_a_picture(kind: str, edits: list[tuple[int, int]], end: int) -> None:
    data = bytearray(encoded(drawing("star", 64), kind)[:end])
    for at, value in edits:
        data[at % len(data)] = value
    try:
        picture = open_image(data, max_pixels=1 << 20)
    except ImageError:
        return
    assert picture.mode == "RGB"


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
    # Among the 27 or so that plain Pillow does not open HEIC opens here, and ICO, JPEG 2000, PSD and PPM do not.
    assert refused == {UndecodableImage: 11, UnsupportedImage: 8, ImageTooLarge: 1}


def test_memory_is_taken_for_what_a_file_has_and_not_for_what_it_might_have() -> None:
    asked: list[int | None] = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size)
            return super().read(size)

    assert open_image(Stream(png(np.zeros((9, 9), np.uint8)))).size == (9, 9)
    assert all(size is not None and 0 < size <= 1 << 20 for size in asked)


def test_a_file_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 4096)

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 <= size <= 4096, "everything was asked for"
            return b"\x89PNG\r\n\x1a\n".ljust(size, b"0")

    with pytest.raises(ImageTooLarge, match="more than"):
        open_image(Endless())

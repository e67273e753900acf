"""Hostile pictures, made by hypothesis: they are refused or opened.

`make test` tries the same few every time. `make soak` tries many more, other ones each time. HTTP requests are
made in the same way by ``tests/service/http/test_openapi.py``.
"""

import struct
import zlib
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketch_search.model.decoding import Decoders, Job
from sketch_search.model.errors import ImageError
from sketch_search.model.images import media_type
from tests.benchmarks.results import Soak, soak
from tests.pictures import ODD_FILES, drawing, encoded, oriented, photo

pytestmark = pytest.mark.fuzz

HOSTILE_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with one to six ranges overwritten, deleted or repeated. Half of them are in the head of the file."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(changed), 600)) | st.integers(0, len(changed)))
        size = draw(st.sampled_from((1, 2, 4, 30, 500)))
        number = draw(st.sampled_from(HOSTILE_NUMBERS)).to_bytes(4, draw(st.sampled_from(("little", "big"))))
        part = changed[at : at + size]
        changed[at : at + size] = draw(st.sampled_from((number, b"", part * 2)) | st.binary(min_size=1, max_size=8))
    return bytes(changed)


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Iterator[Soak]:
    """Records the outcomes of a test's cases, which `make soak` writes down."""
    with soak(request.param) as made:
        yield made


def counted(what: str) -> pytest.MarkDecorator:
    """Makes a test count its cases; the sentence is about each of them."""
    return pytest.mark.parametrize("run", [what], indirect=True, ids=[""])


@cache
def valid_pictures() -> dict[str, bytes]:
    """A file of every kind that is read, by name."""
    small, lines = photo("star", 96), drawing("house", 96)
    compressed = dict.fromkeys(("tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"), small)
    compressed |= dict.fromkeys(("group3", "group4"), lines.convert("1"))
    return {odd.name: odd.data for odd in ODD_FILES if odd.opens and len(odd.data) < 200_000} | {
        "restarts.jpg": encoded(small, "JPEG", restart_marker_blocks=2),
        "two pictures.jpg": encoded(small, "MPO", save_all=True, append_images=[lines]),
        "turned.jpg": oriented(small, 6),
        "small.webp": encoded(small, "WEBP"),
        "one bit.bmp": encoded(lines.convert("1"), "BMP"),
        **{f"{name}.tif": encoded(picture, "TIFF", compression=name) for name, picture in compressed.items()},
    }


def with_right_checksums(png: bytes) -> bytes:
    """A damaged PNG file whose chunks have the checksums of what they hold now: else decoders look no further."""
    fixed, at = bytearray(png), 8
    while at + 12 <= len(fixed) and (end := at + 8 + struct.unpack_from(">I", fixed, at)[0]) + 4 <= len(fixed):
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


@counted("Picture files of every format with random edits. Each is opened or refused in a sentence")
@given(st.data(), st.sampled_from((None, 64)))
def test_a_damaged_picture_is_opened_or_refused(
    run: Soak, decoders: Decoders, data: st.DataObject, least_side: int | None
) -> None:
    run.times += 1
    valid = valid_pictures()[data.draw(st.sampled_from(sorted(valid_pictures())))]
    changed = data.draw(damaged(valid))
    if media_type(valid) == "image/png":
        changed = with_right_checksums(changed)
    try:
        picture = decoders.run(changed, Job(least_side=least_side)).image
    except ImageError as error:
        if "crashes its decoder" in str(error):
            raise
        return
    assert picture.mode == "RGB"
    assert min(picture.size) > 0

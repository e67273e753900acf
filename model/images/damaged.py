"""Opens what viewers show of files of which a part is missing or broken."""

import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageFile

# What follows the first scan of a JPEG beside its data: further tables and scans, comments, data of programs.
_SEGMENTS = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_RESTARTS = range(0xD0, 0xD8)
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
# The most bytes of a pixel of a PNG: four channels of 16 bits, and what begins each row.
_PIXEL_BYTES = 9
_tolerating = threading.Lock()


class _InThisThread:
    """A flag that is set in the thread that made it: others may decode at the same time, and must see damage."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def __bool__(self) -> bool:
        return threading.get_ident() == self._thread


@contextmanager
def tolerance() -> Iterator[None]:
    """Lets Pillow decode PNG and GIF in this thread as far as they can be read; the rest of the pixels is 0."""
    with _tolerating:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, _InThisThread()  # type: ignore[assignment]
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def repair(data: bytes, media: str) -> bytes | None:
    """Returns a damaged file as decoders accept it; None for a type that cannot be decoded in part."""
    if media == "image/jpeg":
        return _jpeg(data)
    if media == "image/png":
        return _png(data)
    if media == "image/gif":
        return data
    size = 8 + int.from_bytes(data[4:8], "little")
    return data.ljust(size, b"\0") if media == "image/webp" and len(data) < size < 2 * len(data) else None


def decoded_share(data: bytes, media: str, opened: Callable[[], Image.Image]) -> float:
    """Returns the share of a damaged picture that exists, 0 to 1. data: before its repair; opened: after it."""
    if media == "image/webp":
        return len(data) / (8 + int.from_bytes(data[4:8], "little"))
    if media == "image/jpeg":
        with opened() as picture:
            # The eighth, as grey: libjpeg fills it with the middle of the scale, up to its end.
            picture.draft("L", (1, 1))
            grey = np.asarray(picture).astype(np.int16)
        rows = np.flatnonzero((np.abs(grey.reshape(len(grey), -1) - 128) > 1).any(axis=1))
        return (int(rows[-1]) + 1) / len(grey) if len(rows) else 0.0
    pixels = []
    # What is not decoded stays as it was.
    for before in (0, 255):
        with opened() as picture:
            picture.im = Image.new(picture.mode, picture.size, (before,) * len(picture.getbands())).im
            pixels.append(np.asarray(picture))
    return float((pixels[0] == pixels[1]).mean())


def _jpeg(data: bytes) -> bytes:
    """Drops markers that do not belong into the data of a scan, and ends the file."""
    at = 2
    # The data of a program, such as a thumbnail, may hold a scan, too.
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda" and at + 4 <= len(data):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    parts = [data[:at]]
    while found := _MARKER.search(data, at):
        marker, begin, end = data[found.end() - 1], found.end() - 2, found.end()
        if marker == _EOI or (marker == _SOI and _is_segment(data, end)):
            # Another picture follows, or nothing.
            parts.append(data[at:begin])
            break
        if marker in _RESTARTS:
            pass
        elif _is_segment(data, begin):
            end += int.from_bytes(data[end : end + 2], "big")
        else:
            parts.append(data[at:begin])
            at = end
            continue
        parts.append(data[at:end])
        at = end
    else:
        parts.append(data[at:])
    return b"".join(parts) + b"\xff\xd9"


def _is_segment(data: bytes, at: int) -> bool:
    """Returns True if a segment begins here, and ends where another one, or a scan, begins."""
    if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] not in _SEGMENTS:
        return False
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if data[at + 1] == _SOS:
        return length == 6 + 2 * data[at + 4] if len(data) > at + 4 else False
    following = at + 2 + length
    return len(data) > following + 1 and data[following] == 0xFF and data[following + 1] in _SEGMENTS


def _png(data: bytes) -> bytes:
    """Corrects the checksum of complete pixels, without which Pillow drops the last rows."""
    at, packed, rest = 8, bytearray(), [data[:8]]
    width, height = struct.unpack_from(">II", data, 16)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name == b"IDAT":
            packed += data[at + 8 : end - 4]
        else:
            rest.append(data[at:end])
        at = end
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with suppress(zlib.error):
        raw = inflater.decompress(packed[2:], _PIXEL_BYTES * (width + 1) * height)
        if inflater.eof:
            body = b"IDAT" + packed[: len(packed) - len(inflater.unused_data)] + struct.pack(">I", zlib.adler32(raw))
            pixels = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
            return b"".join([*rest[:-1], pixels, rest[-1]])
    return data

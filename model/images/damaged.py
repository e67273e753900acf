"""Repairs files that viewers show although a part is missing or broken.

Missing parts are filled, so that decoders reach the end; existing pixels are unchanged.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

# What follows the first scan of a JPEG beside its data: further tables and scans, comments, data of programs.
_SEGMENTS = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_RESTARTS = range(0xD0, 0xD8)
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff+[\x01-\xfe]")
# Chunks of a PNG that are kept beside its pixels, if they are sound.
_KEPT = {b"PLTE", b"tRNS", b"sRGB", b"gAMA", b"cHRM", b"eXIf"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: the first column and row of each pass, and the steps between its pixels.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# This many bytes are unpacked at a time, since all of them are lost if one is wrong.
_STEP = 4096


@dataclass(frozen=True)
class Mended:
    """A file that can be decoded, and the share of it that existed, from 0 to 1; None if only its pixels show that."""

    data: bytes
    there: float | None = None


def mended(data: bytes, media: str, max_pixels: int) -> Mended | None:
    """Makes a damaged file decodable; None if that is impossible."""
    if media == "image/jpeg":
        return Mended(_jpeg(data))
    if media == "image/png":
        return _png(data, max_pixels)
    if media == "image/gif":
        return _gif(data, max_pixels)
    size = 8 + int.from_bytes(data[4:8], "little")
    if media == "image/webp" and len(data) < size < 2 * len(data):
        return Mended(data.ljust(size, b"\0"), len(data) / size)
    return None


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


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yields the name and the content of each chunk of a PNG, and whether its checksum is right."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        body, check = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        yield name, body, zlib.crc32(name + body).to_bytes(4, "big") == check
        at += 12 + length


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(data: bytes, max_pixels: int) -> Mended | None:
    """Keeps the pixels, and other parts that are intact and small."""
    kept, packed, header = list[bytes](), list[bytes](), b""
    for name, body, sound in _chunks(data):
        if name == b"IDAT":
            packed.append(body)
        elif name == b"IHDR":
            header = body if sound else b""
        elif sound and not packed and name in _KEPT:
            kept.append(_chunk(name, body))
        elif name == b"IEND":
            break
    if len(header) != 13:
        return None
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in _CHANNELS or width * height > max_pixels:
        return None
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    size = sum(
        rows * (1 + -(-columns * bits * _CHANNELS[colour] // 8)) for columns, rows in sizes if columns > 0 and rows > 0
    )
    raw = _unpacked(b"".join(packed), size)
    whole = zlib.compress(raw.ljust(size, b"\0"), 1)
    chunks = [_chunk(b"IHDR", header), *kept, _chunk(b"IDAT", whole), _chunk(b"IEND", b"")]
    return Mended(data[:8] + b"".join(chunks), len(raw) / max(1, size))


def _unpacked(packed: bytes, most: int) -> bytes:
    """Unpacks as much as possible, ignoring the checksum at the end."""
    inflater, found, size = zlib.decompressobj(-zlib.MAX_WBITS), list[bytes](), 0
    try:
        for start in range(2, len(packed), _STEP):
            part = packed[start : start + _STEP]
            while part and size < most:
                found.append(inflater.decompress(part, most - size))
                size += len(found[-1])
                part = inflater.unconsumed_tail
    except zlib.error:
        pass
    return b"".join(found)


def _gif(data: bytes, max_pixels: int) -> Mended | None:
    """Fills up the first picture of a GIF."""
    at = 13 + _table(data[10:11])
    while at < len(data) and data[at] == 0x21:
        at, _ = _blocks(data, at + 2)
    if data[at : at + 1] != b"\x2c" or len(data) < at + 11:
        return None
    width, height = struct.unpack_from("<HH", data, at + 5)
    end, missing = _blocks(data, at + 11 + _table(data[at + 9 : at + 10]))
    if missing is None or width * height > max_pixels:
        return None
    # A code has up to twelve bits, and 0 is always a pixel.
    return Mended(data[:end] + bytes(missing) + (b"\xff" + bytes(255)) * (1 + width * height // 160) + b"\0;")


def _table(flags: bytes) -> int:
    """Returns the size of a table of colours."""
    return 3 << (1 + (flags[0] & 7)) if flags and flags[0] & 0x80 else 0


def _blocks(data: bytes, at: int) -> tuple[int, int | None]:
    """Returns the end of a GIF's blocks, and how many bytes the last block lacks; None if they are complete."""
    while at < len(data):
        if not data[at]:
            return at + 1, None
        at += 1 + data[at]
    return len(data), at - len(data)

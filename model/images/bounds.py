"""Counts, from the bytes of a file, the parts that cost a decoder time: scans, segments, chunks, strips.

A file of a few megabytes can have millions of these, and then takes minutes to decode. Decoders find other problems.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal

from model.errors import CostlyImage

# The most scans of a JPEG. Progressive JPEGs have some ten; each scan may visit the whole picture.
MAX_SCANS = 100
# The most chunks or strips, for which Pillow takes some tenths of a second. Large pictures have a few thousand.
MAX_PARTS = 65_536

# A marker in compressed data: 0xFF and a byte that is neither zero, nor a restart, nor 0xFF again.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_STRIPS, _TILES = 273, 324
_SHORT = 3


def check_bounds(data: bytes, media: str) -> None:
    """Raises `CostlyImage` if a file of this media type has more parts than any picture needs."""
    if check := _CHECKS.get(media):
        check(data)


def _check_jpeg(data: bytes) -> None:
    at, segments = 2, 0
    # Decoders skip all bytes that are no segment.
    while (at := data.find(b"\xff", at)) >= 0 and (code := data[at + 1 : at + 2]) and code != b"\xda":
        segments += 1
        _check_count("JPEG", "segments", segments, MAX_PARTS)
        alone = code in b"\x00\x01\xff" or 0xD0 <= code[0] <= 0xD9
        at += 1 if alone else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if at < 0 or data.count(b"\xff\xda", at) <= MAX_SCANS:
        return
    # The scans so far may belong to further pictures in the same file, which are not decoded.
    scans = 0
    for marker in _MARKER.finditer(data, at):
        if marker[0] == b"\xff\xd9":
            return
        scans += marker[0] == b"\xff\xda"
        _check_count("JPEG", "scans", scans, MAX_SCANS)


def _check_png(data: bytes) -> None:
    at, chunks = 8, 0
    while at < len(data):
        chunks += 1
        _check_count("PNG", "chunks", chunks, MAX_PARTS)
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _check_gif(data: bytes) -> None:
    palette = 3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0
    at, blocks = 13 + palette, 0
    while (block := data[at : at + 1]) not in (b"", b",", b";"):
        blocks += 1
        _check_count("GIF", "blocks", blocks, MAX_PARTS)
        at += 1
        if block == b"!":
            at += 1
            while at < len(data) and data[at]:
                blocks += 1
                _check_count("GIF", "blocks", blocks, MAX_PARTS)
                at += 1 + data[at]
            at += 1


def _check_tiff(data: bytes) -> None:
    for number, (tag, values, _) in enumerate(tiff_entries(data), 1):
        _check_count("TIFF", "entries", number, MAX_PARTS)
        if tag in (_STRIPS, _TILES):
            _check_count("TIFF", "strips or tiles", values, MAX_PARTS)


def tiff_entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields the entries of a TIFF file's first directory: tag, number of values, first value or their offset."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    sign, big = "<" if order == "little" else ">", b"+" in data[2:4]
    # The layouts of the directory's offset, of its number of entries, and of an entry: tag, type, count and values.
    offset, count, entry = (sign + layout for layout in (("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")))
    with suppress(struct.error):
        (at,) = struct.unpack_from(offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(count, data, at)
        at += struct.calcsize(count)
        for start in range(at, min(at + entries * struct.calcsize(entry), len(data)), struct.calcsize(entry)):
            tag, type_, values, field = struct.unpack_from(entry, data, start)
            yield tag, values, int.from_bytes(field[:2] if type_ == _SHORT else field, order)


def _check_count(name: str, parts: str, count: int, most: int) -> None:
    if count > most:
        raise CostlyImage(
            f"the {name} file has more than {most:,} {parts}, far more than a picture needs; save it anew"
        )


_CHECKS: dict[str, Callable[[bytes], None]] = {
    "image/jpeg": _check_jpeg,
    "image/png": _check_png,
    "image/gif": _check_gif,
    "image/tiff": _check_tiff,
}

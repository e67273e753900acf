"""Small files that are pictures, and cost far more time or memory to decode than any picture that people have."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from PIL import Image

from tests.pictures import encoded


@cache
def scan_bomb(scans: int = 25_000, side: int = 6_300) -> bytes:
    """A white progressive JPEG in which one scan, of the AC coefficients, is repeated. Each scan visits all blocks."""
    plain = encoded(Image.new("L", (side, side), "white"), "JPEG", progressive=True)
    starts = []
    at = plain.find(b"\xff\xda")
    while at >= 0:
        starts.append(at)
        at = plain.find(b"\xff\xda", at + 2)
    # The second scan, with the Huffman table before it: the first one has the DC coefficients.
    table = plain.rfind(b"\xff\xc4", starts[0], starts[1])
    end = plain.find(b"\xff", starts[1] + 2 + int.from_bytes(plain[starts[1] + 2 : starts[1] + 4], "big"))
    once = plain[table:end]
    return plain[:end] + once * (scans - 1) + b"\xff\xd9"


@cache
def strip_bomb(strips: int = 1_000_000, width: int = 40) -> bytes:
    """A grey TIFF of one row a strip, all of them at the same place in the file."""
    pixels = 8
    offsets = pixels + width
    counts = offsets + 4 * strips
    directory = counts + 4 * strips
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, strips),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, strips, offsets),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, strips, counts),
    ]
    return b"".join(
        [
            b"II*\0" + struct.pack("<I", directory),
            b"\xff" * width,
            struct.pack("<I", pixels) * strips,
            struct.pack("<I", width) * strips,
            struct.pack("<H", len(entries)),
            *(struct.pack("<HHII", *entry) for entry in entries),
            bytes(4),
        ]
    )


@cache
def segment_bomb(segments: int = 2_000_000) -> bytes:
    """A JPEG with millions of empty comments."""
    plain = encoded(Image.new("L", (64, 64), "white"), "JPEG")
    return plain[:2] + b"\xff\xfe\0\x02" * segments + plain[2:]


@cache
def chunk_bomb(chunks: int = 800_000) -> bytes:
    """A PNG with hundreds of thousands of empty chunks that nobody knows."""
    plain = encoded(Image.new("L", (64, 64), "white"))
    empty = struct.pack(">I", 0) + b"noNe" + struct.pack(">I", zlib.crc32(b"noNe"))
    return plain[:33] + empty * chunks + plain[33:]


@cache
def block_bomb(blocks: int = 1_600_000) -> bytes:
    """A GIF with more than a million tiny extensions before its picture."""
    plain = encoded(Image.new("L", (64, 64), "white"), "GIF")
    start = 13 + (3 << (1 + (plain[10] & 7)) if plain[10] & 0x80 else 0)
    return plain[:start] + b"!\x01\x01x\0" * blocks + plain[start:]


@dataclass(frozen=True)
class Bomb:
    """A name for the file, and what makes it."""

    name: str
    make: Callable[[], bytes]


BOMBS = (
    Bomb("scans.jpg", scan_bomb),
    Bomb("strips.tif", strip_bomb),
    Bomb("segments.jpg", segment_bomb),
    Bomb("chunks.png", chunk_bomb),
    Bomb("blocks.gif", block_bomb),
)

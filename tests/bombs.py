"""A small file that is a picture, and takes far longer to decode than any picture that people have."""

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

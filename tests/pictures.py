"""Small pictures made in code: drawings, photos, and odd files such as people have in their folders."""

import importlib.util
import io
import json
import math
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFilter, ImageOps, TiffImagePlugin, features

from sketch_search.indexer.samples import draw_photo
from sketch_search.model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from sketch_search.model.images.preprocess import Frame

Line = list[tuple[float, float]]
_ORIENTATION = 0x0112
#: By EXIF orientation: the turn that makes an upright picture into what such a camera stores.
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270"
_STORED = {number: Image.Transpose[turn] for number, turn in enumerate(_TURNS.split(), 2)}


def _polygon(corners: int, turn: float = -0.25, radii: tuple[float, ...] = (1.0,)) -> Line:
    angles = [2 * math.pi * (i / corners + turn) for i in range(corners + 1)]
    return [
        (radii[i % len(radii)] * math.cos(angle), radii[i % len(radii)] * math.sin(angle))
        for i, angle in enumerate(angles)
    ]


#: Strokes of each shape within -1..1, the outline first; x to the right, y down.
_STROKES: dict[str, list[Line]] = {
    "circle": [_polygon(48)],
    "square": [_polygon(4, turn=0.125)],
    "triangle": [_polygon(3)],
    "star": [_polygon(10, radii=(1.0, 0.4))],
    "hexagon": [_polygon(6)],
    "cross": [[(-0.9, -0.9), (0.9, 0.9)], [(0.9, -0.9), (-0.9, 0.9)]],
    "zigzag": [[(-1.0 + i * 0.4, 0.5 if i % 2 else -0.5) for i in range(6)]],
    "spiral": [[(t / 60 * math.cos(t / 6), t / 60 * math.sin(t / 6)) for t in range(61)]],
    "house": [
        [(-0.8, 1.0), (-0.8, -0.1), (0.0, -1.0), (0.8, -0.1), (0.8, 1.0), (-0.8, 1.0)],
        [(-0.2, 1.0), (-0.2, 0.4), (0.2, 0.4), (0.2, 1.0)],
    ],
}
SHAPES = tuple(_STROKES)


def strokes(shape: str) -> list[Line]:
    return _STROKES[shape]


def drawing(
    shape: str,
    size: int = 256,
    seed: int = 0,
    *,
    ink: tuple[int, int, int] = (0, 0, 0),
    paper: tuple[int, int, int] = (255, 255, 255),
    width: int | None = None,
) -> Image.Image:
    """A square RGB drawing of one of `SHAPES`. The seed moves, turns and scales it a little."""
    picture = Image.new("RGB", (size, size), paper)
    draw = ImageDraw.Draw(picture)
    for line in _placed(shape, size, random.Random(f"{shape} {seed}")):
        draw.line(line, fill=ink, width=width or max(1, size // 64), joint="curve")
    return picture


def photo(shape: str, size: int = 256, seed: int = 0) -> Image.Image:
    """A square RGB picture of one of `SHAPES`: filled with a colour, lit from one side, on a background with grain."""
    chance = random.Random(f"{shape} photo {seed}")
    draws = np.random.RandomState(chance.randrange(1 << 30))
    outline, *_ = _placed(shape, size, chance)
    mask = Image.new("L", (size, size), 0)
    if outline[0] == outline[-1] or math.dist(outline[0], outline[-1]) < 1.0:
        ImageDraw.Draw(mask).polygon(outline, fill=255)
    else:
        for line in _placed(shape, size, random.Random(f"{shape} photo {seed}")):
            ImageDraw.Draw(mask).line(line, fill=255, width=size // 10, joint="curve")
    inside = np.asarray(mask.filter(ImageFilter.GaussianBlur(size / 256)), np.float64)[:, :, None] / 255
    front, back = (np.array([chance.uniform(low, low + 90) for _ in range(3)]) for low in (20, 140))
    light = np.linspace(0.75, 1.15, size)[None, :, None]
    grain = draws.normal(0, 14, (size, size, 1)) + draws.normal(0, 4, (size, size, 3))
    return Image.fromarray(np.clip((inside * front + (1 - inside) * back) * light + grain, 0, 255).astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(
    samples: NDArray[np.uint8] | NDArray[np.uint16], *, claims: tuple[int, int] | None = None, transparent: bytes = b""
) -> bytes:
    """A PNG file of (H, W) or (H, W, 2 to 4), with 16 bits, a transparent value or a false size: Pillow writes none."""
    height, width = samples.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2] if samples.ndim == 3 else 1]
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", *(claims or (width, height)), 8 * samples.dtype.itemsize, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
        if body or name == b"IEND"
    )


def dated(picture: Image.Image, taken: object, kind: str = "JPEG", orientation: int = 1) -> bytes:
    """Returns the file of a picture whose EXIF says that it was taken then, as ``2021:05:06 07:08:09``."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: taken}
    read = Image.Exif()
    # Pillow writes the inner block of a TIFF file only from one that was read.
    read.load(exif.tobytes())
    return encoded(picture, kind, exif=read)


def stored(picture: Image.Image, orientation: int) -> Image.Image:
    """Turns an upright picture into what a camera stores with this EXIF orientation."""
    turn = _STORED.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def oriented(picture: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """A file that shows `picture` to a program that respects the EXIF orientation."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return encoded(stored(picture, orientation), kind, quality=95, exif=exif)


@dataclass(frozen=True)
class OddFile:
    """A file, and what the program should do with it.

    name: a file name; its suffix may lie. error: what `open_image` raises, if it gives no picture.
    as_sketch: the HTTP status of posting it as a sketch.
    """

    name: str
    make: Callable[[], bytes]
    error: type[ImageError] | None = None
    as_sketch: int = 200

    @property
    def opens(self) -> bool:
        return self.error is None

    @cached_property
    def data(self) -> bytes:
        return self.make()


def _placed(shape: str, size: int, chance: random.Random) -> list[Line]:
    scale = size * chance.uniform(0.32, 0.40)
    turn = chance.uniform(-0.12, 0.12)
    x, y = (size * chance.uniform(0.46, 0.54) for _ in range(2))
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    return [[(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in line] for line in _STROKES[shape]]


def _grey() -> NDArray[np.uint8]:
    return np.asarray(drawing("house").convert("L"))


def _deep() -> NDArray[np.uint16]:
    return _grey().astype(np.uint16) * 257


def _drawn_on_nothing(colour: str) -> Image.Image:
    """Strokes on a transparent sheet of the same colour: a program that drops the alpha channel sees nothing."""
    sheet = Image.new("RGBA", (256, 256), colour)
    sheet.putalpha(ImageOps.invert(drawing("star").convert("L")))
    return sheet


def _round_corners() -> Image.Image:
    """A white sheet whose corners are cut off; nothing is drawn on it."""
    sheet = Image.new("LA", (64, 64), (255, 0))
    ImageDraw.Draw(sheet).rounded_rectangle((0, 0, 63, 63), 12, fill=(255, 255))
    return sheet


def _black_palette() -> Image.Image:
    picture = Image.fromarray((_grey() > 127).astype(np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 0, 0, 0])
    return picture


def _animation(kind: str) -> bytes:
    frames = [drawing(shape) for shape in ("circle", "star", "house")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, loop=0)


def _flipped(data: bytes, at: int, count: int = 1) -> bytes:
    return data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + count]) + data[at + count :]


def _strip() -> bytes:
    samples = np.full((1, 100_000), 255, np.uint8)
    samples[0, 20_000:70_000] = 0
    return png(samples)


def _tiff(picture: Image.Image, compression: str | None = None, **options: object) -> bytes:
    return encoded(picture, "TIFF", compression=compression, **options)


def _lab() -> Image.Image:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(drawing("house"), to_lab)
    assert lab is not None
    return lab


def _heic() -> bytes:
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.from_pillow(drawing("star")).save(stream, quality=80)
    return stream.getvalue()


def dng(
    preview: bytes | Image.Image, *, orientation: int = 1, taken: str = "", claims: tuple[int, int] = (64, 48)
) -> bytes:
    """A RAW file, a DNG, with this preview, a JPEG file or pixels, or none; it claims that the sensor saw this size.

    Pillow counts the place of pixels from the end of their directory. What the sensor saw is whatever follows there.
    """
    mosaic = {254: 0, 258: 16, 259: 1, 262: 32803, 277: 1, 279: 64 * 48 * 2, 33421: (2, 2), 33422: bytes((0, 1, 1, 2))}
    sensor = mosaic | {256: claims[0], 257: claims[1], 273: 0, 278: claims[1]}
    unchanged = tuple(TiffImagePlugin.IFDRational(number) for number in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    camera = {271: "Maker", 272: "Camera", 274: orientation, 50706: bytes((1, 4, 0, 0)), 50721: unchanged}
    camera |= {34665: {36867: taken}} if taken else {}
    shown = preview if isinstance(preview, bytes) else preview.tobytes()
    if preview:
        jpeg = isinstance(preview, bytes)
        width, height = (Image.open(io.BytesIO(preview)) if isinstance(preview, bytes) else preview).size
        camera |= {254: 1, 256: width, 257: height, 258: (8, 8, 8), 259: 7 if jpeg else 1, 262: 6 if jpeg else 2}
        camera |= {273: 0, 277: 3, 278: height, 279: len(shown), 330: sensor}
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in (camera if preview else camera | sensor).items():
        directory[tag] = value
    stream = io.BytesIO()
    directory.save(stream)
    return stream.getvalue() + shown + bytes(64 * 48 * 2)


def _raw() -> bytes:
    return dng(encoded(photo("house"), "JPEG"))


# A directory of 500 entries in a block that ends after the first, whose value lies outside of it.
_NO_DIRECTORY = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 500, _ORIENTATION, 5, 9, 0xFFFFFF00)
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="3"/></svg>'


def _damaged(name: str, make: Callable[[], bytes]) -> OddFile:
    return OddFile(name, make, error=UndecodableImage, as_sketch=400)


def _foreign(name: str, make: Callable[[], bytes]) -> OddFile:
    return OddFile(name, make, error=UnsupportedImage, as_sketch=415)


_RAW_FILES = (
    OddFile("raw.dng", _raw),
    OddFile("raw without preview.dng", lambda: dng(b""), as_sketch=422),
    _damaged("raw cut short.dng", lambda: _raw()[:1000]),
)
_PDF_FILES = (OddFile("page.pdf", lambda: encoded(drawing("star"), "PDF"), error=UnsupportedImage),)
ODD_FILES: tuple[OddFile, ...] = (
    OddFile("empty.jpg", lambda: b"", error=UndecodableImage, as_sketch=422),
    _damaged("cut short.jpg", lambda: encoded(photo("star"), "JPEG")[:4000]),
    _damaged("cut short.png", lambda: encoded(photo("star"))[:9000]),
    _damaged("only a signature.png", lambda: encoded(drawing("star"))[:8]),
    _damaged("wrong header checksum.png", lambda: _flipped(encoded(drawing("star")), 29)),
    _damaged("wrong zlib stream.png", lambda: _flipped(png(_grey()), 45, 20)),
    _damaged("cut short.webp", lambda: encoded(photo("star"), "WEBP")[:500]),
    _damaged("cut short.tif", lambda: _tiff(photo("star"))[:3000]),
    _damaged("directory far away.tif", lambda: b"II+\0" + struct.pack("<HHQ", 8, 0, 2**63)),
    _damaged("cut short.gif", lambda: encoded(drawing("star"), "GIF")[:300]),
    _damaged("cut short.bmp", lambda: encoded(drawing("star"), "BMP")[:5000]),
    _foreign("text.jpg", lambda: b"This is no picture, whatever its name says.\n" * 20),
    _foreign("BMW.bmp", lambda: b"BMW is a maker of cars, and this is a text about them.\n"),
    OddFile("vector.svg", lambda: _SVG, error=UnsupportedImage),
    _foreign("portable.ppm", lambda: encoded(drawing("star"), "PPM")),
    OddFile(
        "bomb.png", lambda: png(np.zeros((1, 1), np.uint8), claims=(30_000, 30_000)), error=ImageTooLarge, as_sketch=413
    ),
    OddFile("one pixel.png", lambda: png(np.zeros((1, 1), np.uint8)), as_sketch=422),
    OddFile("white.png", lambda: encoded(Image.new("RGB", (64, 64), "white")), as_sketch=422),
    OddFile("all transparent.png", lambda: encoded(Image.new("RGBA", (64, 64))), as_sketch=422),
    OddFile("white with round corners.png", lambda: encoded(_round_corners()), as_sketch=422),
    OddFile("white on nothing.png", lambda: encoded(_drawn_on_nothing("white"))),
    OddFile("white on nothing.webp", lambda: encoded(_drawn_on_nothing("white"), "WEBP", lossless=True)),
    OddFile("white on nothing, 16 bits.png", lambda: png(65535 - _deep(), transparent=b"\0\0")),
    OddFile("very long.png", _strip),
    OddFile("really a png.jpg", lambda: encoded(drawing("triangle"))),
    OddFile("no suffix", lambda: encoded(drawing("triangle"))),
    OddFile("grey.jpg", lambda: encoded(drawing("house").convert("L"), "JPEG")),
    OddFile("progressive.jpg", lambda: encoded(photo("star"), "JPEG", progressive=True)),
    OddFile("cmyk.jpg", lambda: encoded(drawing("house").convert("CMYK"), "JPEG", quality=90)),
    OddFile("broken exif.jpg", lambda: encoded(drawing("square"), "JPEG", exif=_NO_DIRECTORY)),
    OddFile("impossible orientation.jpg", lambda: oriented(drawing("house"), 99)),
    OddFile("orientation 3.jpg", lambda: oriented(photo("house"), 3)),
    OddFile("orientation 6.jpg", lambda: oriented(photo("house"), 6)),
    OddFile("one bit.png", lambda: encoded(drawing("house").convert("1"))),
    OddFile("palette.png", lambda: encoded(photo("star").quantize(16))),
    OddFile("transparent palette.png", lambda: encoded(_black_palette(), "PNG", transparency=1)),
    OddFile("grey and alpha.png", lambda: encoded(_drawn_on_nothing("black").convert("LA"))),
    OddFile("alpha.png", lambda: encoded(_drawn_on_nothing("black"))),
    OddFile("transparent value.png", lambda: png(np.where(_grey() > 127, 7, 0).astype(np.uint8), transparent=b"\0\7")),
    OddFile("16 bits grey.png", lambda: png(_deep())),
    OddFile("16 bits colour.png", lambda: png(np.repeat(_deep()[:, :, None], 3, axis=2))),
    OddFile("moving.png", lambda: _animation("PNG")),
    OddFile("moving.gif", lambda: _animation("GIF")),
    OddFile("transparent.gif", lambda: encoded(_black_palette(), "GIF", transparency=1)),
    OddFile("lossy.webp", lambda: encoded(drawing("circle"), "WEBP", quality=60)),
    OddFile("alpha.webp", lambda: encoded(_drawn_on_nothing("black"), "WEBP", lossless=True)),
    OddFile("moving.webp", lambda: _animation("WEBP")),
    OddFile("plain.bmp", lambda: encoded(drawing("circle"), "BMP")),
    OddFile("16 bits.tif", lambda: _tiff(Image.fromarray(_deep()))),
    OddFile("12 bits in 16.tif", lambda: _tiff(Image.fromarray((_deep() // 16).astype(np.uint16)))),
    OddFile("16 bits big-endian.tif", lambda: _tiff(Image.fromarray(_deep().astype(">u2")))),
    OddFile("floats.tif", lambda: _tiff(Image.fromarray(_grey().astype(np.float32) / 255))),
    OddFile("cmyk.tif", lambda: _tiff(drawing("house").convert("CMYK"))),
    OddFile("lab.tif", lambda: _tiff(_lab())),
    OddFile("lzw.tiff", lambda: _tiff(drawing("house"), "tiff_lzw")),
    OddFile("turned.tiff", lambda: oriented(drawing("house"), 6, "TIFF")),
    OddFile("pages.tiff", lambda: _tiff(drawing("circle"), save_all=True, append_images=[drawing("house")])),
    *((OddFile("plain.avif", lambda: encoded(drawing("star"), "AVIF")),) if features.check("avif") else ()),
    *((OddFile("plain.heic", _heic),) if importlib.util.find_spec("pillow_heif") else ()),
    *(_PDF_FILES if importlib.util.find_spec("pypdfium2") else ()),
    *(_RAW_FILES if importlib.util.find_spec("rawpy") else ()),
)


def odd_file(name: str) -> bytes:
    return next(odd.data for odd in ODD_FILES if odd.name == name)


FOUR = ("umbrella", "cat", "guitar", "bicycle")


def page(
    things: Sequence[str], columns: int, ground: str = "ivory", gap: int = 30, margin: int = 40, tilt: float = 0
) -> tuple[Image.Image, list[Frame]]:
    """Returns a scan of a page with photos of these things, and where these are before it is tilted, in degrees."""
    side, rows = 200, -(-len(things) // columns)
    width, height = (2 * margin + count * (side + gap) - gap for count in (columns, rows))
    paper, frames = Image.new("RGB", (width, height), ground), list[Frame]()
    for number, thing in enumerate(things):
        left, top = (margin + place * (side + gap) for place in (number % columns, number // columns))
        paper.paste(draw_photo(thing, number + 1).resize((side, side)), (left, top))
        frames.append((left, top, left + side, top + side))
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 1))
    scanned = Image.fromarray((np.asarray(paper) + noise).clip(0, 255).astype(np.uint8))
    return scanned.rotate(tilt, Image.Resampling.BICUBIC, fillcolor=ground), frames


def panorama(things: Sequence[str], turned: int = 0) -> Image.Image:
    """Returns photos of these things side by side, as wide as they are high, turned by so many pixels around."""
    every = np.concatenate([np.asarray(draw_photo(thing, 1).resize((200, 200))) for thing in things], axis=1)
    return Image.fromarray(np.roll(every, turned, axis=1))


def specks(across: int, radius: int = 1, side: int = 640) -> Image.Image:
    """A drawing of so many by so many dots, each alone."""
    paper = Image.new("RGB", (side, side), "white")
    for number in range(across**2):
        x, y = ((at + 0.5) * side / across for at in divmod(number, across))
        ImageDraw.Draw(paper).ellipse((x - radius, y - radius, x + radius, y + radius), fill="black")
    return paper


def costly_drawings() -> dict[str, tuple[bytes, bytes]]:
    """Drawings that each make one step of a request work most, with their strokes as JSON, if they are known."""
    chance, dots = random.Random(0), [(n / 2000, (37 * n % 2000) / 2000) for n in range(2000)]

    def drawn(lines: Sequence[Line], **further: object) -> tuple[bytes, bytes]:
        paper = Image.new("RGB", (640, 640), "white")
        for line in lines:
            ImageDraw.Draw(paper).line([(640 * x, 640 * y) for x, y in line], fill="black", width=2)
        told = [{"points": line, "width": 0.003, **further} for line in lines]
        return encoded(paper), json.dumps([one | {"thing": n % 1000} for n, one in enumerate(told)]).encode()

    hatched = [(x / 60, y / 24) for x in range(60) for y in range(24)]
    wild = [(chance.random(), chance.random()) for _ in range(100_000)]
    blocks = [(x / 20, y / 20) for x in range(20) for y in range(20)]
    return {
        **{f"{count} x {count} specks": (encoded(specks(count)), b"") for count in (31, 60)},
        "hatching": (drawn([[(x, y), (x + 0.01, y + 0.02)] for x, y in hatched])[0], b""),
        "strokes of two points": drawn([[(x, y), (x + 0.004, y + 0.004)] for x, y in dots]),
        "things": drawn([[(x, y), (x + 0.03, y), (x + 0.03, y + 0.03), (x, y)] for x, y in blocks]),
        "points": (encoded(specks(9, 9)), json.dumps([{"points": wild, "width": 1, "filled": True}]).encode()),
    }

"""The formats of picture files, a row for each: listing, recognition, errors and descriptions follow from it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from sketch_search.model.errors import UnsupportedImage
from sketch_search.model.terminal import EXTRAS

# "BM" alone may begin any text, so a bitmap is also recognised by the length of its second header.
_BITMAP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
#: The bytes of a file by which its format is known.
SNIFFED = 512


def _is_bitmap(head: bytes) -> bool:
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS


def _is_tga(head: bytes) -> bool:
    """Recognises a Targa file, which has no signature, by all that its header may hold."""
    if (
        len(head) < 18
        or head[16] not in (8, 16, 24, 32)
        or head[17] & 0xC0
        or not (any(head[12:14]) and any(head[14:16]))
    ):
        return False
    mapped, kind, *palette = head[1:8]
    return (mapped == 1 and kind in (1, 9)) or (mapped == 0 and kind in (2, 3, 10, 11) and not any(palette))


@dataclass(frozen=True)
class ImageFormat:
    """A format of picture files.

    name: that people call it by. media: its type. endings: of names, in lower case. signatures: with which its files
    begin. brands: of its boxes (ISO/IEC 14496-12, 4.3). looks: whether a beginning without a signature is one of it.
    module: of its decoder; None for Pillow's. in_parts: whether that reads no further than its picture goes. rare:
    whether sentences for people leave it out. drawing: whether it is read as a sketch only.
    """

    name: str
    media: str
    endings: str
    signatures: tuple[bytes, ...] = ()
    brands: tuple[bytes, ...] = ()
    looks: Callable[[bytes], bool] = field(default=lambda head: False)
    module: str | None = None
    in_parts: bool = False
    rare: bool = False
    drawing: bool = False

    @property
    def suffixes(self) -> frozenset[str]:
        return frozenset(f".{ending}" for ending in self.endings.split())

    @property
    def extra(self) -> str | None:
        """The extra that installs its decoder; None if Pillow has it."""
        return None if self.module is None else EXTRAS[self.module.partition(".")[0]]

    def decoder(self, module: str | None = None) -> Any:
        """Imports its decoder, or another library that it needs. Raises UnsupportedImage with the extra."""
        try:
            return import_module(module or self.module or "PIL.Image")
        except ImportError as error:
            remedy = f"pip install 'sketch-search[{self.extra}]'"
            raise UnsupportedImage(f"{self.name} needs an extra package: {remedy}") from error


JPEG = ImageFormat("JPEG", "image/jpeg", "jpg jpeg jpe jfif mpo insp", (b"\xff\xd8\xff",), in_parts=True)
PNG = ImageFormat("PNG", "image/png", "png apng", (b"\x89PNG\r\n\x1a\n",), in_parts=True)
SVG = ImageFormat("SVG", "image/svg+xml", "svg svgz", module="resvg_py", drawing=True)
WEBP = ImageFormat("WebP", "image/webp", "webp", looks=lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP")
GIF = ImageFormat("GIF", "image/gif", "gif", (b"GIF87a", b"GIF89a"), in_parts=True)
BMP = ImageFormat("BMP", "image/bmp", "bmp dib", looks=_is_bitmap, in_parts=True)
TIFF = ImageFormat("TIFF", "image/tiff", "tif tiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
AVIF = ImageFormat("AVIF", "image/avif", "avif avifs", brands=(b"avif", b"avis"))
_HEIC_BRANDS = tuple(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
HEIC = ImageFormat("HEIC", "image/heic", "heic heif hif", brands=_HEIC_BRANDS, module="pillow_heif")
_JPEG_2000_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_JPEG_2000_ENDINGS = "jp2 j2k jpf jpx j2c jpc"
JPEG_2000 = ImageFormat("JPEG 2000", "image/jpeg2000", _JPEG_2000_ENDINGS, _JPEG_2000_STARTS, in_parts=True, rare=True)
TGA = ImageFormat("TGA", "image/tga", "tga", looks=_is_tga, in_parts=True, rare=True)
PSD = ImageFormat("PSD", "image/psd", "psd", (b"8BPS\0\1",), in_parts=True, rare=True)
_JXL_STARTS, _JXL_DECODER = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"), "pillow_jxl.JpegXLImagePlugin"
JPEG_XL = ImageFormat("JPEG XL", "image/jxl", "jxl", _JXL_STARTS, module=_JXL_DECODER, rare=True)
_RAW_STARTS = (b"II*\0\x10\0\0\0CR", b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
_RAW_ENDINGS = "dng cr2 cr3 nef nrw arw orf rw2 raf pef srw"
RAW = ImageFormat("RAW", "image/x-dcraw", _RAW_ENDINGS, _RAW_STARTS, (b"crx ",), module="rawpy", rare=True)
PDF = ImageFormat("PDF", "application/pdf", "pdf", module="pypdfium2", rare=True, drawing=True)
#: All of them, in the order in which sentences name them.
FORMATS = (JPEG, PNG, SVG, WEBP, GIF, BMP, TIFF, AVIF, HEIC, JPEG_2000, TGA, PSD, JPEG_XL, RAW, PDF)
#: The endings of names of photos, and of those that cameras write unprocessed.
IMAGE_SUFFIXES = frozenset(suffix for row in FORMATS if not row.drawing for suffix in row.suffixes)
RAW_SUFFIXES = RAW.suffixes
# A longer signature may begin with a shorter one.
_SIGNATURES = sorted(((sign, row) for row in FORMATS for sign in row.signatures), key=lambda pair: -len(pair[0]))


def listed(formats: Iterable[ImageFormat]) -> str:
    """Names formats in a sentence: "PNG, GIF or BMP"."""
    *names, last = [row.name for row in formats]
    return f"{', '.join(names)} or {last}" if names else last


#: What most programs write, of photos, of drawings alone, and of both.
PHOTO_FORMATS = listed(row for row in FORMATS if not (row.rare or row.drawing))
DRAWING_FORMATS = listed(row for row in FORMATS if row.drawing)
SKETCH_FORMATS = listed(row for row in FORMATS if not row.rare)


def recognise(head: bytes) -> ImageFormat | None:
    """Returns the format of a file of pixels by its first bytes; of a few RAW files it is TIFF."""
    for signature, row in _SIGNATURES:
        if head.startswith(signature):
            return row
    length = min(int.from_bytes(head[:4], "big"), SNIFFED) if head[4:8] == b"ftyp" else 0
    brands = {head[at : at + 4] for at in (8, *range(16, length - 3, 4)) if length}
    return next((row for row in FORMATS if row.looks(head) or brands.intersection(row.brands)), None)

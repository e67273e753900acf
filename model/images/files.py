"""Opens picture files of every common type as upright 8-bit RGB."""

import io
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from model.files import MARK
from model.images.ink import LEAST_CONTRAST
from model.images.raw import RAW_BRAND, RAW_SIGNATURES, RAW_SUFFIXES, is_raw_tiff, open_preview

_DAY = re.compile(r"\s*(\d{4})[:-](\d\d)[:-](\d\d)(?!\d)", re.ASCII)
# The year of the first photo. A camera whose clock was never set may say the year 0.
_FIRST_YEAR = 1826
#: Pillow's own warning level: 256 MiB of RGB. Beyond it Pillow treats a file as a decompression bomb.
MAX_PIXELS = 89_478_485

#: The most bytes of a file: somewhat more than a picture of MAX_PIXELS with four channels of 16 bits has.
MAX_BYTES = 1 << 30
# Bytes of a file that are read at once.
_PIECE = 1 << 20

#: File name endings that are worth opening, in lower case.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".heic", ".heif", ".hif", ".avif", ".avifs"}
    | RAW_SUFFIXES
)

Source: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True)
class OpenedImage:
    """A picture as `open_image` returns it, and the day on which it was taken, if its file says so."""

    image: Image.Image
    taken: date | None


_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
_RAW = "image/x-dcraw"
_SIGNATURES = {
    _RAW: RAW_SIGNATURES,
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/tiff": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
}
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# "BM" alone may begin any text, so a bitmap is also recognised by the length of its second header.
_BITMAP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_SNIFFED = 512
_STRIP_PIXELS = 1 << 22
_WHITE = 255
# The least share of a sketch that is transparent if its paper is. Less is a hole, or the corners of the paper.
_LEAST_SHEET = 0.2


def open_image(
    source: Source, *, max_pixels: int = MAX_PIXELS, least_side: int | None = None, sketch: bool = False
) -> Image.Image:
    """Opens a picture as a new 8-bit RGB image: first frame, upright by EXIF, transparency on white, no metadata.

    The bytes decide the type, not the name; a stream is read to its end. Values of 16 and 32 bits, integers or floats,
    are scaled to 0..255. Several threads may call it.

    With `least_side` a JPEG is decoded at 1/2, 1/4 or 1/8 of its size: the smallest at which no side is shorter than
    this many pixels. This is much faster, but the pixels differ slightly, and thin lines suffer. With `sketch`,
    transparency becomes black if nothing could be seen on white: see `to_rgb`.

    Raises `ImageError`: `UnsupportedImage` (not a type that is read here), `UndecodableImage` (damaged, cut short or
    empty), `ImageTooLarge` (more than `max_pixels` pixels by its header, or than `MAX_BYTES`); and any `OSError` of a
    path or stream. Pillow's own limit, twice `MAX_PIXELS`, holds whatever `max_pixels` is. Decoding a hostile file may
    take minutes: `model.decoding` has limits.
    """
    return open_dated(source, max_pixels=max_pixels, least_side=least_side, sketch=sketch).image


def open_dated(
    source: Source, *, max_pixels: int = MAX_PIXELS, least_side: int | None = None, sketch: bool = False
) -> OpenedImage:
    data = read_image_file(source)
    media = _media(data)
    try:
        return _decode(data, media, max_pixels, least_side, sketch)
    except (ImageError, MemoryError):
        raise  # the picture is not at fault if memory is short
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(_too_large(max_pixels)) from error
    # Decoders of untrusted bytes may raise any error from SyntaxError to struct.error. All become one error here.
    except Exception as error:
        without_reason = isinstance(error, UnidentifiedImageError) or not str(error)
        reason = "its header cannot be read" if without_reason else " ".join(str(error).split())[:200]
        raise UndecodableImage(f"the {_format(media)} file is damaged: {reason}") from error


def media_type(data: bytes) -> str | None:
    """Returns the media type of a file by its first 512 bytes, or None. For a few RAW files it is TIFF."""
    for media, signatures in _SIGNATURES.items():
        if data.startswith(signatures):
            return _RAW if media == "image/tiff" and is_raw_tiff(data) else media
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BITMAP_HEADERS:
        return "image/bmp"
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), _SNIFFED)
        brands = {data[8:12], *(data[i : i + 4] for i in range(16, length - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "image/avif"
        if brands & _HEIC_BRANDS:
            return "image/heic"
        if RAW_BRAND in brands:
            return _RAW
    return None


def _format(media: str) -> str:
    """Returns Pillow's name of a type."""
    return "RAW" if media == _RAW else media.removeprefix("image/").upper()


def as_png(image: Image.Image) -> bytes:
    """Returns the file of a picture, which says that this program has written it."""
    written, info = io.BytesIO(), PngInfo()
    info.add_text("Software", MARK)
    image.save(written, "PNG", pnginfo=info)
    return written.getvalue()


def to_rgb(image: Image.Image, *, sketch: bool = False) -> Image.Image:
    """Converts a picture of any Pillow mode to 8-bit RGB of the same size, transparency on white, without metadata.

    With `sketch`, transparency is on black if all of the picture would be white otherwise and at least a fifth of it is
    transparent: white strokes can be seen then, and a white sheet with round corners stays blank.
    """
    rgb = _on_paper(image, _WHITE)
    # A sketch without ink on white would only be refused as blank; the pixels of all other sketches stay as they are.
    if sketch and image.has_transparency_data and np.asarray(rgb).min() > _WHITE - LEAST_CONTRAST:
        on_black = _on_paper(image, 0)
        is_sheet = (np.asarray(on_black)[..., 0] < 128).mean() >= _LEAST_SHEET
        rgb = on_black if is_sheet else rgb
    # A CMYK profile or an orientation would be wrong for these pixels if somebody saved them.
    rgb.info = {}
    return rgb


def _on_paper(image: Image.Image, paper: int) -> Image.Image:
    """Converts a picture of any mode to RGB, on paper of this grey level."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(image, paper)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, (paper, paper, paper))
        rgb.paste(layer, mask=layer.getchannel("A"))
        return rgb
    return image.convert("RGB")


def read_image_file(source: Source) -> bytes:
    """Reads an image file. Files of other types are refused as by `open_image`, without reading all."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as stream:
            return read_image_file(stream)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        # The type is determined first, so that a film of many gigabytes in the photo folder is not read whole.
        head = source.read(_SNIFFED)
        _media(head)
        pieces, size = [head], len(head)
        # A read takes memory for the most that it may return: all at once would take MAX_BYTES for any small file.
        while piece := source.read(min(_PIECE, MAX_BYTES + 1 - size)):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BYTES:
                raise ImageTooLarge(f"the file has more than {MAX_BYTES >> 20:,} MiB; save it smaller")
        data = b"".join(pieces)
    _media(data)
    return data


def _media(head: bytes) -> str:
    if not head:
        raise UndecodableImage("the file is empty")
    media = media_type(head)
    if media is None:
        raise UnsupportedImage(f"not an image type that is read here; convert it to {_READABLE}")
    return media


def _decode(data: bytes, media: str, max_pixels: int, least_side: int | None, sketch: bool) -> OpenedImage:
    with _open(data, media) as picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise ImageTooLarge(_too_large(max_pixels, width, height))
        if width < 1 or height < 1:
            raise UndecodableImage(f"the {_format(media)} file has no pixels")
        reduced = None if least_side is None else picture.draft(None, (least_side, least_side))
        picture.load()
        rgb = to_rgb(picture, sketch=sketch)
        if reduced is not None and (box := reduced[1])[2:] != rgb.size:
            # What lies outside the whole picture, in the last row and column, is cut off. Else the picture would be
            # squashed by up to a pixel, which changes tokens more than the reduction itself.
            rgb = rgb.resize((round(box[2]), round(box[3])), Image.Resampling.BICUBIC, box)
        exif = rgb.getexif()
        # Cameras and editors write EXIF that no parser expects. A picture on its side is better than no picture.
        with suppress(Exception):
            exif[ExifTags.Base.Orientation] = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
        taken = _day_taken(picture)
    ImageOps.exif_transpose(rgb, in_place=True)
    exif.clear()
    return OpenedImage(rgb, taken)


def _open(data: bytes, media: str) -> Image.Image:
    stream = io.BytesIO(data)
    if media == "image/heic":
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise UnsupportedImage("HEIC needs an extra package: pip install 'sketch-search[heic]'") from error
        # The class is used directly, because registering it would change Image.open for the whole process.
        picture: Image.Image = HeifImageFile(stream)  # type: ignore[no-untyped-call]
        return picture
    if media == _RAW:
        return open_preview(data)
    name = _format(media)
    Image.init()
    if name not in Image.OPEN:
        raise UnsupportedImage(f"this Pillow was built without {name}; install Pillow 11.3 or newer from PyPI")
    try:
        return Image.open(stream, formats=(name,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    # Pillow looks for the resolution in the EXIF block of a JPEG while opening, and may fail at its content.
    except Exception:
        if name != "JPEG":
            raise
        return Image.open(io.BytesIO(_without_exif(data)), formats=(name,))


def _without_exif(jpeg: bytes) -> bytes:
    """Returns the file without its APP1 segments, which hold EXIF and XMP."""
    kept, at = [jpeg[:2]], 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda" and at + 4 <= len(jpeg):
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != 0xE1:
            kept.append(jpeg[at:end])
        at = end
    return b"".join(kept) + jpeg[at:]


def _day_taken(picture: Image.Image) -> date | None:
    """Reads the day of EXIF's DateTimeOriginal, by the camera's clock; None without one, or if it is impossible."""
    with suppress(Exception):  # as for the orientation
        exif, tag = picture.getexif(), ExifTags.Base.DateTimeOriginal
        text = exif.get_ifd(ExifTags.IFD.Exif).get(tag, exif.get(tag))
        if isinstance(text, str) and (found := _DAY.match(text)):
            day = date(*map(int, found.groups()))
            # In the time zone of the photo it may be tomorrow already.
            if day.year >= _FIRST_YEAR and day <= date.today() + timedelta(days=1):
                return day
    return None


def _from_numbers(image: Image.Image, paper: int) -> Image.Image:
    """Scales the modes I;16, I and F by their usual range, or from their least to their greatest value."""
    values = np.asarray(image)
    low, high = (0.0, 65535.0) if image.format == "PNG" else _range(values)
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, len(values), rows):
        strip = np.nan_to_num(values[top : top + rows].astype(np.float64), nan=low, posinf=high, neginf=low)
        grey[top : top + rows] = np.clip((strip - low) * (255.0 / (high - low)) + 0.5, 0.0, 255.0)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = paper
    return Image.fromarray(grey).convert("RGB")


def _range(values: NDArray[np.generic]) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low >= 0.0:
        # A usual range counts only if the values fill it: 12-bit values in 16-bit words, or ten labels, would be black.
        for least, full in ((0.0, 1.0), (16.0, 255.0), (4096.0, 65535.0)):
            if least < high <= full and (full > 1.0 or values.dtype.kind == "f"):
                return 0.0, full
    return low, max(high, low + 1.0)


def _from_lab(image: Image.Image) -> Image.Image:
    rgb = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    if rgb is None:
        raise UndecodableImage("its Lab colours cannot be converted")
    return rgb


def _too_large(max_pixels: int, width: int = 0, height: int = 0) -> str:
    size = f"{width} x {height} pixels" if width else "the picture"
    return f"{size} is more than the limit of {max_pixels:,} pixels; make it smaller"

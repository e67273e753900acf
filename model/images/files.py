"""Opens picture files of every common type as upright 8-bit RGB."""

import base64
import binascii
import io
import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO, TypeAlias, cast
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from sketch_search.model.errors import ImageTooLarge, UndecodableImage, UnsupportedImage
from sketch_search.model.files import MARK
from sketch_search.model.images import formats, ink, subject, tiff, vector
from sketch_search.model.images.drawing import Drawing
from sketch_search.model.images.formats import ImageFormat
from sketch_search.model.images.ink import Pixels
from sketch_search.model.images.recorded import Day, Recorded, day_in_file, read_recorded, zone_in_file
from sketch_search.model.images.tiff import open_preview
from sketch_search.model.limits import MAX_PIXELS, Allowance

#: The most bytes of a file: somewhat more than a picture of MAX_PIXELS with four channels of 16 bits has.
MAX_BYTES = 1 << 30
# Bytes of a file that are read at once, and those that a decoder may get behind the place where its picture ends.
_PIECE, _BEHIND = 1 << 20, 8 << 20


class LargeFile(io.BufferedReader):
    """A file of which only what decoders need is read, as far as they can read in parts."""


Source: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True)
class OpenedImage:
    """A picture as `open_image` returns it, and the day on which it was taken, as far as its file says it.

    incomplete: whether a part may be missing. zone: of the photo's clock, in minutes, if its file says no day but its
    zone or place. recorded: what else it says. drawing, parts, and wholes, the photo and its parts by ``fit_photo``:
    if asked for. page: of a drawing's file with several, the one that was opened, from 1; else 0.
    """

    image: Image.Image
    taken: Day | None
    incomplete: bool = False
    drawing: Drawing | None = None
    zone: int | None = None
    recorded: Recorded | None = None
    wholes: tuple[Pixels, ...] = ()
    parts: tuple[Image.Image, ...] = ()
    page: int = 0


# Pages may contain pictures of any size. So many pixels are more than a scanned page has.
_PDF_PIXELS = 1 << 25
# The most pages that are looked at for the one with most ink, at so many pixels a side.
_PAGES, _PAGE_SIDE = 10, 1024
# Bytes in which the first element of an SVG is looked for, after any comments.
_BEGINNING = 1 << 16
_STRIP_PIXELS = 1 << 22
_WHITE = 255
# The least share of a sketch that is transparent if its paper is. Less is a hole, or the corners of the paper.
_LEAST_SHEET = 0.2
# The least share of a damaged picture that must exist.
_LEAST_DECODED = 0.6
# From so many pixels on, a photo of which fewer are wanted is reduced before anything else is done with it.
_LARGE = 40_000_000
# The most frames of an animation that are looked at, at so many pixels a side, and what differs from its paper there.
_FRAMES, _LOOKED_AT, _LEAST_DIFFERENCE = 1000, 256, 4
# The codes of primaries and transfer in a PNG and an AVIF, and that of PQ (ITU-T H.273).
_CICP, _NCLX, _PQ_CODE = rb"\0\0\0\x04cICP(.)(.)", rb"colrnclx\0(.)\0(.)", 16
# From the light of BT.2020, Display P3 and sRGB to that of sRGB; and PQ's m1, m2, c1, c2 and c3.
_LIGHTS = {
    9: np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32),
    12: np.array([[1.2249, -0.2247, 0.0], [-0.042, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32),
    1: np.eye(3, dtype=np.float32),
}
_PQ = (2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128)
# The side at which the ink of a transparent drawing is compared on white and black, and what is an edge there.
_COMPARED, _EDGE = 512, 20
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\s]{16,}=*\s*")
_SPACES = b" \t\n\r\v\f"
# The most bytes of a data URL before its data.
_LONGEST_HEAD = 1024
# The boxes of files that hold pictures.
_OF_PICTURES = frozenset({b"mdat", b"jxlc", b"jxlp"})
_FROM_URLS = bytes.maketrans(b"-_", b"+/")


def open_image(
    source: Source, *, max_pixels: int = MAX_PIXELS, least_side: int | None = None, sketch: bool = False
) -> Image.Image:
    """Opens a picture as a new 8-bit RGB image: one frame, upright by EXIF, transparency on white, no metadata.

    The bytes decide the type, not the name; a stream is read to its end. Values of 16 and 32 bits, integers or floats,
    are scaled to 0..255. Several threads may call it.

    With `least_side` a JPEG is decoded at 1/2, 1/4 or 1/8 of its size: the smallest at which no side is shorter than
    this many pixels. This is much faster, but the pixels differ slightly, and thin lines suffer. With `sketch`,
    transparency becomes black if nothing could be seen on white: see `to_rgb`; of an animation, the frame with
    most ink counts, and of a photo, the sheet or board that it shows.

    A JPEG, PNG, GIF or WebP that is damaged is opened if about three fifths of the picture are there. Colours are
    converted to sRGB if the file has a profile. With `sketch`, SVG and PDF are read, too.

    Raises `ImageError`: `UnsupportedImage` (not a type that is read here), `UndecodableImage` (damaged, cut short or
    empty), `ImageTooLarge` (more than `max_pixels` pixels are to be decoded, or than `MAX_BYTES` bytes); and any
    `OSError` of a path or stream. Decoding a hostile file may take minutes: `model.decoding` has limits.
    """
    return open_dated(source, max_pixels=max_pixels, least_side=least_side, sketch=sketch).image


def open_dated(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    least_side: int | None = None,
    sketch: bool = False,
    declare: Callable[[int], None] = lambda pixels: None,
    page: int = 0,
) -> OpenedImage:
    """Opens a picture as ``open_image`` does; ``declare`` is told how many pixels its file declares, before they are
    decoded. page: of a drawing in a PDF or TIFF, from 1; 0 for the one with most ink that is no writing."""
    source = source if isinstance(source, LargeFile) else read_image_file(source)
    kind, allowed, pages = _kind(_beginning(source)), Allowance(max_pixels, declare), _Pages(page)
    if kind.drawing and not sketch:
        article = "an" if kind is formats.SVG else "a"
        raise UnsupportedImage(
            f"{article} {kind.name} file is a drawing, not a photo; convert it to {formats.PHOTO_FORMATS}"
        )
    data = _needed(source, kind, allowed) if isinstance(source, LargeFile) else source
    try:
        return _decode(data, kind, allowed, least_side, sketch, pages)
    except (ImageTooLarge, UnsupportedImage, MemoryError):
        raise  # not the file's fault
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge("a frame of the picture has more pixels than Pillow can decode; make it smaller") from error
    except UndecodableImage as error:
        refused = error
    # Decoders of untrusted bytes may raise any error from SyntaxError to struct.error. All become one error here.
    except Exception as error:
        # Some messages show bytes of the file.
        unclear = isinstance(error, UnidentifiedImageError) or not str(error) or re.search(r"\bb['\"]", str(error))
        reason = "its header cannot be read" if unclear else " ".join(str(error).split())[:200]
        refused = UndecodableImage(f"the {kind.name} file is damaged: {reason}")
        refused.__cause__ = error
    try:
        data = read_whole(data) if isinstance(data, LargeFile) else data
        return _decode_damaged(data, kind, allowed, least_side, sketch, pages)
    except (ImageTooLarge, MemoryError):
        raise
    except Exception:  # the first reason is reported, whatever else is wrong
        raise refused from refused.__cause__


class _Pages:
    """Chooses the page of a drawing's file that has several. number: of the chosen one, from 1; 0 if there is one."""

    def __init__(self, page: int) -> None:
        self._page, self.number = page, 0

    def choose(self, count: int, draw: Callable[[int], Image.Image], most: int = _PAGES) -> Image.Image:
        """Returns the wanted page, or else the one with most ink that is no writing. Raises UnsupportedImage."""
        if self._page > count:
            raise UnsupportedImage(f"the file has {count} pages and no page {self._page}; name another")
        if count == 1:
            return draw(0)
        if self._page:
            self.number = self._page
            return draw(self._page - 1)
        best, drawn = draw(0), -1
        for number in range(min(count, most)):
            picture = draw(number)
            small = to_rgb(picture, sketch=True)
            small.thumbnail((_PAGE_SIDE, _PAGE_SIDE), Image.Resampling.BOX)
            if (ink := subject.count_drawn(small)) > drawn:
                best, drawn, self.number = picture.copy(), ink, number + 1
        return best


def _decode_damaged(
    data: bytes, kind: ImageFormat, allowed: Allowance, least_side: int | None, sketch: bool, pages: _Pages
) -> OpenedImage:
    """Decodes a file that viewers would show although it is damaged. Raises any error."""
    repaired = tiff.repair(data, kind.media)
    if repaired is None:
        raise ValueError
    with tiff.tolerance():
        opened = _decode(repaired, kind, allowed, least_side, sketch, pages)
        share = tiff.decoded_share(data, kind.media, lambda: _open(repaired, kind, allowed, pages))
    if share < _LEAST_DECODED:
        raise ValueError
    return replace(opened, incomplete=share < 1.0 or kind is not formats.PNG)


def media_type(data: bytes) -> str | None:
    """Returns the media type of a file by its first 512 bytes, or None. For a few RAW files it is TIFF."""
    kind = _of_pixels(data)
    return None if kind is None else kind.media


def _of_pixels(data: bytes) -> ImageFormat | None:
    kind = formats.recognise(data)
    return formats.RAW if kind is formats.TIFF and tiff.is_raw_tiff(data) else kind


def as_png(image: Image.Image) -> bytes:
    """Returns a picture as a PNG file, marked as written by this program."""
    written, info = io.BytesIO(), PngInfo()
    info.add_text("Software", MARK)
    image.save(written, "PNG", pnginfo=info)
    return written.getvalue()


def to_rgb(image: Image.Image, *, sketch: bool = False) -> Image.Image:
    """Converts a picture of any Pillow mode to 8-bit RGB of the same size, transparency on white, without metadata.

    With `sketch`, transparency is on black if the drawing stands out from that more than from white, and at least a
    fifth of it is transparent: white strokes can be seen then, and a white sheet with round corners stays blank.
    """
    rgb = _on_paper(image, _WHITE)
    if sketch and image.has_transparency_data:
        on_black = _on_paper(image, 0)
        # Pixels that differ are transparent.
        sheet = (np.asarray(rgb)[..., 0] > np.asarray(on_black)[..., 0].astype(np.int16) + 128).mean()
        if sheet >= _LEAST_SHEET and _edges(on_black) > _edges(rgb):
            rgb = on_black
    # A CMYK profile or an orientation would be wrong for these pixels if somebody saved them.
    rgb.info = {}
    return rgb


def _edges(image: Image.Image) -> int:
    """Counts the edges of a drawing. Areas would not do: a white filling is larger than the lines around it."""
    small = image.copy()
    small.thumbnail((_COMPARED, _COMPARED), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int16)
    return sum(int((np.abs(np.diff(pixels, axis=axis)).max(axis=-1) >= _EDGE).sum()) for axis in (0, 1))


def _on_paper(image: Image.Image, paper: int) -> Image.Image:
    """Converts a picture of any mode to RGB, on paper of this grey level."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(image, paper)
    if image.mode == "LAB":
        profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
        if (converted := ImageCms.profileToProfile(image, *profiles, outputMode="RGB")) is None:
            raise UndecodableImage("its Lab colours cannot be converted")
        return converted
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, (paper, paper, paper))
        rgb.paste(layer, mask=layer.getchannel("A"))
        return rgb
    return image.convert("RGB")


def _beginning(data: bytes | LargeFile) -> bytes:
    if isinstance(data, bytes):
        return data
    data.seek(0)
    return data.read(_BEGINNING)


def _needed(file: LargeFile, kind: ImageFormat, allowed: Allowance) -> bytes | LargeFile:
    """Returns a file that decoders read in parts, or its bytes as far as those of its picture may go."""
    if kind.in_parts:
        return file
    head = _beginning(file)
    if kind is formats.WEBP:
        return read_whole(file, 8 + int.from_bytes(head[4:8], "little"))
    if head[4:8] in (b"ftyp", b"JXL "):
        return read_whole(file, _end_of_boxes(file))
    if kind is formats.JPEG_XL:
        allowed.admit(*(size := _size_of_jxl(head)))
        return read_whole(file, size[0] * size[1] * tiff.PIXEL_BYTES + _BEHIND)
    return read_whole(file, None if kind.drawing else tiff.end_of_pictures(file) + _BEHIND)


def _end_of_boxes(file: LargeFile) -> int:
    """Returns where the boxes of a file end (ISO/IEC 14496-12, 4.2), of which the last may be cut short."""
    at, size = 0, file.seek(0, os.SEEK_END)
    while at < size:
        file.seek(at)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        length = int.from_bytes(head[8:16], "big") if length == 1 else length or size - at
        if length < 8 or at + length > size or not name.strip(b" ").isalnum():
            return size if name in _OF_PICTURES else at
        at += length
    return size


def read_whole(file: LargeFile, end: int | None = None) -> bytes:
    """Reads a file from its beginning, to its end or up to a place."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return file.read(size if end is None else min(end, size))


def read_image_file(source: Source) -> bytes:
    """Reads an image file. Files of other types are refused as by `open_image`, without reading all."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as stream:
            return read_image_file(stream)
    if isinstance(source, bytes | bytearray | memoryview):
        data = _unwrap(bytes(source))
    else:
        # The type is determined first, so that a film of many gigabytes in the photo folder is not read whole.
        head = source.read(min(_BEGINNING, MAX_BYTES))
        _kind(_unwrap(head))
        pieces, size = [head], len(head)
        # A read takes memory for the most that it may return: all at once would take MAX_BYTES for any small file.
        while piece := source.read(min(_PIECE, MAX_BYTES + 1 - size)):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BYTES:
                raise ImageTooLarge(f"the file has more than {MAX_BYTES >> 20:,} MiB; save it smaller")
        data = _unwrap(b"".join(pieces))
    _kind(data)
    return data


def _unwrap(data: bytes) -> bytes:
    """Returns the file in a data URL or in base64, of which a beginning may do; other bytes as they are."""
    if _known(data):
        return data
    inner = _from_base64(data) if _BASE64.fullmatch(data[:64]) else None
    if data[:5].lower() == b"data:" and (comma := data.find(b",", 0, _LONGEST_HEAD)) >= 0:
        inner = _unquote(data, comma + 1)
        if inner and data[:comma].lower().endswith(b";base64"):
            inner = _from_base64(inner)
    return data if inner is None or not _known(inner) else inner


def _unquote(text: bytes, at: int) -> bytes:
    """Decodes %20 and the like from here on, piece by piece: the library takes memory for each percent sign."""
    pieces = list[bytes]()
    while at < len(text):
        # No piece ends within a sign.
        end = max(at + _BEGINNING, text.rfind(b"%", at + _BEGINNING - 2, at + _BEGINNING) + 3)
        pieces.append(unquote_to_bytes(text[at:end]))
        at = end
    return b"".join(pieces)


def _from_base64(text: bytes) -> bytes | None:
    text = text.translate(_FROM_URLS, _SPACES).rstrip(b"=")
    # One character more than whole bytes is no byte; it may be the beginning of one.
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None


def _known(head: bytes) -> ImageFormat | None:
    if kind := _of_pixels(head):
        return kind
    if vector.is_svg(head):
        return formats.SVG
    return formats.PDF if head[:1024].lstrip().startswith(b"%PDF-") else None


def _kind(head: bytes) -> ImageFormat:
    if not head:
        raise UndecodableImage("the file is empty")
    if (kind := _known(head)) is None:
        drawing = f"a drawing may be {formats.DRAWING_FORMATS}"
        raise UnsupportedImage(f"not a supported image type; convert it to {formats.PHOTO_FORMATS}; {drawing}")
    return kind


def _decode(
    data: bytes | LargeFile, kind: ImageFormat, allowed: Allowance, least_side: int | None, sketch: bool, pages: _Pages
) -> OpenedImage:
    if kind is formats.TIFF and isinstance(data, bytes):
        data = tiff.with_picture_first(data)
    head = _beginning(data)
    with _open(data, kind, allowed, pages) as picture:
        width, height = picture.size
        draft_size = None if least_side is None else (least_side, least_side)
        if draft_size is None and width * height > allowed.pixels:
            # A JPEG that is too large is decoded at half of its size, or less.
            shrink = math.ceil(math.sqrt(width * height / allowed.pixels))
            draft_size = (max(1, width // shrink), max(1, height // shrink))
        reduced = None if draft_size is None else picture.draft(None, draft_size)
        if picture.width * picture.height > allowed.pixels:
            raise ImageTooLarge.of(width, height, allowed.pixels)
        # Progressive files are decoded whole, however few of their pixels are wanted.
        allowed.declare(min(width * height, allowed.pixels))
        frame = shown = _frame(picture, sketch, allowed.pixels, pages)
        profile, light = picture.info.get("icc_profile"), _light_of_pq(picture, head)
        if least_side and width * height > _LARGE and picture.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
            shown = frame.reduce(max(1, min(picture.size) // least_side))
        rgb = to_rgb(_as_srgb(shown, profile) if light is None else shown, sketch=sketch)
        rgb = rgb if light is None else _from_pq(rgb, light)
        if reduced is not None and (box := reduced[1])[2:] != rgb.size and shown is frame:
            # Else the picture would be squashed by up to a pixel, which changes tokens more than the reduction itself.
            rgb = rgb.resize((round(box[2]), round(box[3])), Image.Resampling.BICUBIC, box)
        taken = day_in_file(picture)
        known = bool(taken and taken.day)
        zone = None if known else zone_in_file(picture)
        exif, turn = rgb.getexif(), 1
        # Cameras and editors write EXIF that no parser expects. A picture on its side is better than no picture.
        with suppress(Exception):
            exif[ExifTags.Base.Orientation] = turn = _orientation(picture)
        recorded = read_recorded(picture, (width, height), turned=turn >= 5, dated=known)
    ImageOps.exif_transpose(rgb, in_place=True)
    exif.clear()
    rgb = ink.on_even_paper(rgb) if sketch else rgb
    return OpenedImage(rgb, taken, zone=zone, recorded=recorded, page=pages.number)


def _frame(picture: Image.Image, sketch: bool, max_pixels: int, pages: _Pages) -> Image.Image:
    """Decodes a picture: of an animation the first frame not of one colour, of a sketch the one with most ink."""
    if sketch and picture.format == "TIFF" and (count := getattr(picture, "n_frames", 1)) > 1:

        def draw(number: int) -> Image.Image:
            picture.seek(number)
            if picture.width * picture.height > max_pixels:
                raise ImageTooLarge.of(picture.width, picture.height, max_pixels)
            picture.load()
            return picture

        return pages.choose(count, draw, min(_PAGES, max_pixels // (picture.width * picture.height)))
    picture.load()
    if not getattr(picture, "is_animated", False) or picture.format not in ("GIF", "WEBP", "PNG"):
        return picture
    best, most = picture.copy(), _count_ink(picture)
    last = min(_FRAMES, max_pixels // (picture.width * picture.height)) if sketch else _FRAMES
    with suppress(Exception):  # a later frame may be damaged
        for frame in range(1, min(last, picture.n_frames)):  # type: ignore[attr-defined]
            if most and not sketch:
                break
            picture.seek(frame)
            picture.load()
            if (ink := _count_ink(picture)) > most:
                best, most = picture.copy(), ink
    picture.seek(0)
    return best


def _count_ink(picture: Image.Image) -> int:
    """Counts the pixels of a frame, at a small size, that differ from its middle colour; 0 if it is all of one."""
    rgba = picture.convert("RGBA")
    small = np.asarray(rgba.resize((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX), np.int16)
    ink = int((np.abs(small - np.median(small, axis=(0, 1))).max(axis=-1) >= _LEAST_DIFFERENCE).sum())
    return ink or int(rgba.getcolors(1) is None)


def _orientation(picture: Image.Image) -> int:
    """Returns EXIF's orientation. Browsers do not obey that of XMP, which Pillow takes if there is no other.

    A JPEG XL is upright when it is decoded, unless a JPEG was packed into it.
    """
    if picture.format == "JXL" and not getattr(picture, "jpeg", False):
        return 1
    exif, block = picture.getexif(), Image.Exif()
    if picture.info.keys() & {"xmp", "XML:com.adobe.xmp"} and picture.format in ("JPEG", "MPO", "PNG", "WEBP"):
        block.load(picture.info.get("exif", b""))
        exif = block
    return int(exif.get(ExifTags.Base.Orientation, 1))


def _as_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Converts the colours of a picture from its profile to sRGB. A profile that does not fit is passed over."""
    with suppress(Exception):  # profiles are also untrusted bytes
        if isinstance(profile, bytes) and image.mode in ("L", "RGB", "RGBA", "CMYK"):
            transform = _to_srgb(profile, image.mode)
            return image if transform is None else ImageCms.applyTransform(image, transform) or image
    return image


def _light_of_pq(picture: Image.Image, head: bytes) -> NDArray[np.float32] | None:
    """Returns the conversion of a picture's light to that of sRGB, if its values are by PQ (SMPTE ST 2084)."""
    match = None
    if picture.format == "PNG":
        match = re.search(_CICP, head[: head.find(b"IDAT")], re.DOTALL)
    elif picture.format == "AVIF" and not picture.info.get("icc_profile"):
        match = re.search(_NCLX, head[:_BEGINNING], re.DOTALL)
    nclx = picture.info.get("nclx_profile") or {}  # of HEIC
    codes = [nclx.get("color_primaries", 0), nclx.get("transfer_characteristics", 0)]
    primaries, transfer = [part[0] for part in match.groups()] if match else codes
    return _LIGHTS.get(primaries) if transfer == _PQ_CODE else None


def _from_pq(rgb: Image.Image, light: NDArray[np.float32]) -> Image.Image:
    """Shows white paper (203 nits, ITU-R BT.2408) as white, and what is lighter, too."""
    powers = (np.arange(256) / 255) ** (1 / _PQ[1])
    linear = (np.maximum(powers - _PQ[2], 0) / (_PQ[3] - _PQ[4] * powers)) ** (1 / _PQ[0]) * (10_000 / 203)
    steps = np.arange(4096) / 4095
    shown = np.where(steps <= 0.0031308, 12.92 * steps, 1.055 * steps ** (1 / 2.4) - 0.055)
    levels, values, pixels = linear.astype(np.float32), np.rint(255 * shown).astype(np.uint8), np.array(rgb)
    rows = max(1, _STRIP_PIXELS // rgb.width)
    for top in range(0, rgb.height, rows):
        strip = levels[pixels[top : top + rows]] @ light.T
        pixels[top : top + rows] = values[np.rint(strip.clip(0, 1) * 4095).astype(np.int16)]
    return Image.fromarray(pixels)


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Makes the conversion of pixels of a mode to sRGB; None if they are sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in (source.profile.profile_description or "").lower():
        return None
    target = "RGBA" if mode == "RGBA" else "RGB"
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, target)


def _open(data: bytes | LargeFile, kind: ImageFormat, allowed: Allowance, pages: _Pages) -> Image.Image:
    if isinstance(data, LargeFile):
        data.seek(0)
        return _open_by_pillow(data, kind, lambda: read_whole(data), allowed)
    stream = io.BytesIO(data)
    if (size_of := _SIZES.get(kind.media)) and (size := size_of(data)):
        allowed.admit(*size)
    # Their classes are used directly, because registering them would change Image.open for the whole process.
    if kind is formats.HEIC:
        return cast(Image.Image, kind.decoder().HeifImageFile(stream))
    if kind is formats.JPEG_XL:
        picture = kind.decoder().JXLImageFile(stream)
        if not picture.jpeg:
            picture.info |= _boxes_of_jxl(data)
        return cast(Image.Image, picture)
    if kind is formats.SVG:
        return vector.draw_svg(data, lambda inner: _picture_within(inner, allowed), allowed.declare)
    if kind is formats.PDF:
        allowed.declare(_PDF_PIXELS)
        return vector.draw_pdf(data, pages.choose)
    if kind is formats.RAW:
        return open_preview(data, allowed)
    return _open_by_pillow(stream, kind, lambda: data, allowed)


def _open_by_pillow(
    stream: BinaryIO | LargeFile, kind: ImageFormat, whole: Callable[[], bytes], allowed: Allowance
) -> Image.Image:
    name = kind.name.replace(" ", "").upper()
    Image.preinit()
    if name not in Image.OPEN:
        Image.init()
    if name not in Image.OPEN:
        raise UnsupportedImage(f"this Pillow was built without {kind.name}; install Pillow 11.3 or newer from PyPI")
    # Not by Image.open, which has a limit of its own for the whole process, and warns before that.
    opener: Callable[..., Image.Image] = Image.OPEN[name][0]
    try:
        picture = opener(stream, "")
    # Pillow looks for the resolution in the EXIF block of a JPEG while opening, and may fail at its content.
    except Exception:
        if name == "JPEG":
            return opener(io.BytesIO(_drop_exif(whole())), "")
        if name == "TIFF":
            return tiff.read_pixels(whole(), allowed)
        raise
    return tiff.read_pixels(whole(), allowed) if name == "TIFF" and tiff.needs_own_reader(picture) else picture


def _picture_within(data: bytes, allowed: Allowance) -> Image.Image:
    kind = _kind(data)
    if kind.drawing:
        raise UnsupportedImage(f"the SVG file contains a file of type {kind.name}; save it as PNG")
    picture = _open(data, kind, allowed, _Pages(0))
    allowed.admit(picture.width, picture.height)
    picture.load()
    return picture


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    """Reads width and height of a WebP, for which Pillow takes memory as soon as it opens it."""
    kind, bits = data[12:16], int.from_bytes(data[24:30], "little")
    if kind == b"VP8X":
        return (bits & 0xFFFFFF) + 1, (bits >> 24) + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (bits >> 16 & 0x3FFF, bits >> 32 & 0x3FFF) if kind == b"VP8 " else None


def _size_of_jxl(data: bytes) -> tuple[int, int]:
    """Reads width and height of a JPEG XL (ISO/IEC 18181-1, SizeHeader), which its library decodes to open it."""
    at = data.find(b"\xff\x0a", 0 if data[:1] == b"\xff" else 12, 1 << 16)
    bits = int.from_bytes(data[at + 2 : at + 14], "little")

    def read(count: int) -> int:
        nonlocal bits
        bits, value = bits >> count, bits & (1 << count) - 1
        return value

    def side() -> int:
        return 8 * (read(5) + 1) if small else 1 + read((9, 13, 18, 30)[read(2)])

    small = read(1)
    height, ratio = side(), read(3)
    across, down = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return (height * across // down if ratio else side()), height


def _boxes_of_jxl(data: bytes) -> dict[str, bytes]:
    """Reads EXIF and XMP from the boxes of a JPEG XL (ISO/IEC 18181-2), which may be compressed by Brotli."""
    found, at = dict[str, bytes](), 0
    while data[:1] == b"\0" and (length := int.from_bytes(data[at : at + 4], "big")) >= 8:
        kind, box, at = data[at + 4 : at + 8], data[at + 8 : at + length], at + length
        if kind == b"brob" and box[:4] in (b"Exif", b"xml "):
            brotli = formats.JPEG_XL.decoder("brotli")
            with suppress(brotli.error):
                kind, box = box[:4], brotli.Decompressor().process(box[4:], output_buffer_limit=_BEGINNING)
        if kind == b"Exif":
            # Behind the place at which its header begins.
            found["exif"] = box[4 + int.from_bytes(box[:4], "big") :] if box[:1] == b"\0" else box
        elif kind == b"xml ":
            found["xmp"] = box
    return found


_SIZES: dict[str, Callable[[bytes], tuple[int, int] | None]] = {"image/webp": _size_of_webp, "image/jxl": _size_of_jxl}


def _drop_exif(jpeg: bytes) -> bytes:
    """Returns the file without its APP1 segments, which hold EXIF and XMP."""
    kept, at = [jpeg[:2]], 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda" and at + 4 <= len(jpeg):
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != 0xE1:
            kept.append(jpeg[at:end])
        at = end
    return b"".join(kept) + jpeg[at:]


def _from_numbers(image: Image.Image, paper: int) -> Image.Image:
    """Scales the modes I;16, I and F by their usual range, or from their least to their greatest value."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (0.0, 65535.0) if image.format == "PNG" else (float(finite.min()), float(finite.max()))
    # A usual range counts only if the values fill it: 12-bit values in 16-bit words, or ten labels, would be black.
    usual = [1.0] * (values.dtype.kind == "f" and 0 < high <= 1)
    usual += [full for least, full in ((16.0, 255.0), (4096.0, 65535.0)) if least < high <= full]
    low, high = (0.0, usual[0]) if usual and low >= 0 else (low, max(high, low + 1.0))
    negative = tiff.is_white_zero(image)
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, len(values), rows):
        strip = np.nan_to_num(values[top : top + rows].astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled = np.clip((strip - low) * (255.0 / (high - low)) + 0.5, 0.0, 255.0).astype(np.uint8)
        grey[top : top + rows] = _WHITE - scaled if negative else scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = paper
    return Image.fromarray(grey).convert("RGB")

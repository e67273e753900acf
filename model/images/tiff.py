"""Reads what Pillow cannot or misreads: kinds of TIFF, as most RAW files are, and files that are damaged in part."""

import io
import logging
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from sketch_search.model.errors import ImageTooLarge, UndecodableImage, UnsupportedImage
from sketch_search.model.images.formats import RAW
from sketch_search.model.limits import Allowance

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
    while match := _MARKER.search(data, at):
        marker, begin, end = data[match.end() - 1], match.end() - 2, match.end()
        if marker == _EOI or (marker == _SOI and _is_segment(data, end)):
            # Another picture follows, or nothing.
            parts.append(data[at:begin])
            break
        is_segment = _is_segment(data, begin)
        end += int.from_bytes(data[end : end + 2], "big") if is_segment else 0
        parts.append(data[at : end if is_segment or marker in _RESTARTS else begin])
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


# EXIF's orientation for each orientation of LibRaw, which counts from 0.
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC = 254, 255, 256, 257, 262
_SUB_DIRECTORIES, _PLANAR, _DNG_VERSION = 330, 284, 50706
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2
_WHITE_IS_ZERO, _SEPARATED = 0, 5
# Kinds of sensor values: of a colour filter, and linear.
_SENSOR_VALUES = {32803, 34892}
# The most directories of a file, and entries of one, that are looked at. A header may promise any number.
_MAX_DIRECTORIES, _MAX_ENTRIES = 64, 1000
# Where strips, tiles and previews are, and their sizes; and the most of them that are looked at.
_PARTS = ((273, 279), (324, 325), (513, 514))
_PLACES = {_SUB_DIRECTORIES, *(tag for part in _PARTS for tag in part)}
_MAX_PLACES = 1 << 16
_MAX_CHANNELS = 6
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
# The most bytes that a picture takes for a pixel, however badly it is packed: four channels of 32 bits.
PIXEL_BYTES = 16
# Where a RAF says where its preview, its description and its values begin, and how many bytes each has.
_RAF, _RAF_PARTS = RAW.signatures[1], slice(84, 108)
# RAW files with this beginning do not say how many bytes their values have.
_UNSIZED = RAW.signatures[-1]


@dataclass(frozen=True)
class _Directory:
    """A directory of a TIFF file: where it lies, the first value, or its offset, of each tag, and all places in it."""

    at: int
    tags: dict[int, int]
    places: dict[int, tuple[int, ...]]

    @property
    def below(self) -> tuple[int, ...]:
        return self.places.get(_SUB_DIRECTORIES, ())[:_MAX_DIRECTORIES]

    @property
    def pixels(self) -> int:
        return self.tags.get(_WIDTH, 0) * self.tags.get(_HEIGHT, 0)

    @property
    def is_reduced(self) -> bool:
        return bool(self.tags.get(_SUBFILE, 0) & _REDUCED) or self.tags.get(_OLD_SUBFILE) == _OLD_REDUCED


def is_raw_tiff(data: bytes) -> bool:
    """Returns True if a TIFF file is that of a RAW file, as most cameras' are. A beginning of a file may do."""
    directories = [*_directories(data)]
    # If only the beginning of the file is known, a small copy of the picture most probably belongs to a RAW file.
    unknown = any(ifd.is_reduced and any(at >= len(data) for at in ifd.below) for ifd in directories[:1])
    return unknown or any(_DNG_VERSION in d.tags or d.tags.get(_PHOTOMETRIC) in _SENSOR_VALUES for d in directories)


def with_picture_first(data: bytes) -> bytes:
    """Returns a TIFF file whose first directory is that of its picture: it may begin with a small copy."""
    directories = [*_directories(data)]
    pictures = [ifd for ifd in directories if ifd.pixels and not ifd.tags.get(_SUBFILE, 0) & _MASK]
    if not pictures or directories[0].at == 0:
        return data
    largest = max(pictures, key=lambda ifd: ifd.pixels)
    first = pictures[0]
    # A document of many pages is its first page, although another may have some rows more.
    if largest is first or (first is directories[0] and not first.is_reduced and 4 * first.pixels > largest.pixels):
        return data
    sign, big = _layout(data)
    field, start = struct.pack(f"{sign}{'Q' if big else 'I'}", largest.at), 8 if big else 4
    return data[:start] + field + data[start + len(field) :]


class _Slices:
    """The bytes of a file, of which only what is asked for is read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self._size = file, file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> bytes:
        start, end, _ = place.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(0, end - start))


def _unpack(layout: str, data: bytes | _Slices, at: int) -> tuple[Any, ...]:
    return struct.unpack(layout, data[at : at + struct.calcsize(layout)])


def _layout(data: bytes | _Slices) -> tuple[Literal["<", ">"], bool]:
    return "<" if data[:2] == b"II" else ">", b"+" in data[2:4]


def _directories(data: bytes | _Slices) -> Iterator[_Directory]:
    """Yields the directories of the pages, each with those below it, as far as they can be read."""
    sign, big = _layout(data)
    offset = f"{sign}{'Q' if big else 'I'}"
    seen = set[int]()
    # An offset may be higher than any that Python takes.
    with suppress(struct.error, OverflowError):
        waiting = [*_unpack(offset, data, 8 if big else 4)]
        while waiting and len(seen) < _MAX_DIRECTORIES:
            at = waiting.pop()
            if at in seen or not at:
                continue
            seen.add(at)
            with suppress(struct.error, OverflowError):
                directory, end = _directory(data, at)
                yield directory
                following = _unpack(offset, data, end) if end + struct.calcsize(offset) <= len(data) else ()
                waiting += [*following, *reversed(directory.below)]


def _directory(data: bytes | _Slices, at: int) -> tuple[_Directory, int]:
    """Reads a directory. Returns it and where it ends."""
    sign, big = _layout(data)
    order: Literal["little", "big"] = "little" if sign == "<" else "big"
    # The layouts of the number of entries, and of an entry: tag, type, count and values.
    count, entry = (sign + layout for layout in (("Q", "HHQ8s") if big else ("H", "HHI4s")))
    (entries,) = _unpack(count, data, at)
    start, step = at + struct.calcsize(count), struct.calcsize(entry)
    end = start + entries * step
    tags, places = dict[int, int](), dict[int, tuple[int, ...]]()
    for place in islice(range(start, min(end, len(data) - step + 1), step), _MAX_ENTRIES):
        tag, kind, number, field = _unpack(entry, data, place)
        size = _SIZES.get(kind, len(field))
        tags[tag] = int.from_bytes(field[:size], order)
        if tag in _PLACES and tag not in places:
            far = int.from_bytes(field, order)
            held = field if number * size <= len(field) else data[far : far + min(number, _MAX_PLACES) * size]
            ends = range(size, min(number * size, len(held)) + 1, size)
            places[tag] = tuple(int.from_bytes(held[last - size : last], order) for last in ends)
    return _Directory(at, tags, places), end


def is_whole(data: bytes) -> bool:
    """Returns True if all that the directories of a TIFF name lies in the file."""
    parts = ([directory.places.get(tag, ()) for tag in part] for directory in _directories(data) for part in _PARTS)
    return all(start + size <= len(data) for part in parts for start, size in zip(*part, strict=False))


def end_of_pictures(file: io.BufferedReader) -> int:
    """Returns where all ends that a TIFF or RAW file names as its pictures, which may be behind its own end."""
    data, ends = _Slices(file), [0]
    if data[:4] == _UNSIZED:
        return len(data)
    if data[: len(_RAF)] == _RAF:
        parts: tuple[int, ...] = struct.unpack(">6I", data[_RAF_PARTS])
        return max(start + size for start, size in zip(parts[::2], parts[1::2], strict=True))
    for directory in _directories(data):
        ends.append(directory.at)
        for starts, sizes in ([directory.places.get(tag, ()) for tag in part] for part in _PARTS):
            # Some programs write no sizes, and of very many parts not all are looked at.
            known = sizes if len(starts) < _MAX_PLACES else ()
            unknown = directory.pixels * PIXEL_BYTES
            ends += (start + (size or unknown) for start, size in zip_longest(starts, known[: len(starts)]))
    return max(ends)


def needs_own_reader(picture: Image.Image) -> bool:
    """Returns True if Pillow would read an opened TIFF wrongly: with 16 bits, one plane after the other, not packed."""
    tags, codecs = getattr(picture, "tag_v2", {}), {tile[0] for tile in getattr(picture, "tile", ())}
    return tags.get(_PLANAR) == 2 and max(tags.get(258, (1,))) > 8 and codecs == {"raw"}


def is_white_zero(picture: Image.Image) -> bool:
    """Returns True if the least value of an opened TIFF is white."""
    return bool(getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def read_pixels(data: bytes, allowed: Allowance) -> Image.Image:
    """Reads a TIFF's first picture as grey, RGB, RGBA or CMYK of 8 bits. Raises UnsupportedImage; ImageTooLarge."""
    import tifffile

    # Nobody would read its warnings about odd files.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        photometric, extra = int(page.photometric), tuple(map(int, page.extrasamples))
        # A header may also promise a depth, and any number of channels.
        allowed.admit(page.imagewidth, page.imagelength)
        if page.size > _MAX_CHANNELS * allowed.pixels:
            raise ImageTooLarge.of(page.imagewidth, page.imagelength, allowed.pixels)
        allowed.declare(page.size)
        try:
            pixels = np.asarray(page.asarray(maxworkers=1))
        except (ValueError, NotImplementedError, KeyError) as error:
            kind = f"{page.dtype or 'unknown'} numbers, {getattr(page.compression, 'name', page.compression)}"
            raise UnsupportedImage(f"this kind of TIFF is not supported ({kind}); save it with 8 or 16 bits") from error
        axes = page.axes
    if "S" in axes:
        pixels = np.moveaxis(pixels, axes.index("S"), -1)
    if pixels.ndim not in (2, 3) or photometric not in (0, 1, 2, _SEPARATED):
        raise UnsupportedImage("this kind of TIFF is not supported; save it as RGB with 8 or 16 bits")
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    colours, mode = {2: (3, "RGB"), _SEPARATED: (4, "CMYK")}.get(photometric, (1, "L"))
    whole = _bytes(pixels[..., :colours])
    if photometric == _WHITE_IS_ZERO:
        whole = 255 - whole
    if colours == 3 and extra[:1] in ((1,), (2,)) and pixels.shape[-1] > 3:
        mode, whole = "RGBA", np.concatenate([whole, _bytes(pixels[..., 3:4])], axis=-1)
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(whole).tobytes())


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scales numbers to 0..255: integers by their range, floats from 0 to 1, or to their greatest value."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u":
        shift = np.uint64(8 * values.dtype.itemsize - 8).astype(values.dtype)
        return np.asarray(values >> shift, np.uint8)
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = min(0.0, float(finite.min())), max(1.0, float(finite.max()))
    return ((finite - low) * (255.0 / (high - low)) + 0.5).clip(0, 255).astype(np.uint8)


def open_preview(data: bytes, allowed: Allowance) -> Image.Image:
    """Opens a RAW file's largest preview, or develops it. Raises ImageError; ImageTooLarge."""
    rawpy = RAW.decoder()
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            sizes = raw.sizes
            preview: Any
            try:
                preview = raw.extract_thumb()
            except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
                # LibRaw reads past the end of a file that is cut short, where memory may hold a part of another photo.
                if not (data[:2] in (b"II", b"MM") and is_whole(data)):
                    raise
                allowed.admit(sizes.raw_width, sizes.raw_height)
                # Half of the size takes a fraction of the time, and turning is done by EXIF's orientation below.
                preview = raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0)
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    except rawpy.LibRawError as error:
        raise UndecodableImage("the RAW file cannot be read; save the photo as JPEG") from error
    if isinstance(preview, np.ndarray):
        picture: Image.Image = Image.fromarray(preview)
    # It may begin with EXIF that LibRaw has put there.
    elif isinstance(preview.data, bytes):
        if preview.data[len(preview.data) // 2 :] not in data:
            raise UndecodableImage("the RAW file is cut short; copy it from the camera again")
        picture = Image.open(io.BytesIO(preview.data), formats=("JPEG",))
    else:
        picture = Image.fromarray(np.array(preview.data).squeeze())
    # EXIF comes from the camera, where it may be damaged in any way, or else from LibRaw's description of the RAW file.
    with suppress(Exception):
        exif = picture.getexif()
        exif.setdefault(ExifTags.Base.Orientation, _ORIENTATIONS[sizes.flip])
        # LibRaw returns the beginning of 1970 if the file does not have its time.
        if str(exif.get(ExifTags.Base.DateTime, "")) < "1971":
            exif.pop(ExifTags.Base.DateTime, None)
    return picture

"""Reads the preview that a camera has put into a RAW file."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from model.errors import UndecodableImage, UnsupportedImage

#: Endings of the names of RAW files, in lower case.
RAW_SUFFIXES = frozenset({".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"})
RAW_SIGNATURES = (b"II*\x00\x10\x00\x00\x00CR", b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00")
RAW_BRAND = b"crx "

_SUBFILE, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION = 254, 262, 330, 50706
# The most entries of a directory that are looked at. The header of a file may promise any number.
_MAX_ENTRIES = 1000
_SHORT = 3
# Kinds of sensor values: of a colour filter, and linear.
_SENSOR_VALUES = {32803, 34892}
_REDUCED = 1
# EXIF's orientation for each orientation of LibRaw, which counts from 0.
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)
# So many bytes at the end of a preview are compared with the file.
_TAIL = 64


def is_raw_tiff(data: bytes) -> bool:
    """True if the first directory of a TIFF file is that of a RAW file, as most cameras' are."""
    tags = dict(islice(_tiff_entries(data), _MAX_ENTRIES))
    # A file that begins with a small copy of the picture has the values of the sensor in a directory below.
    begins_small = bool(tags.get(_SUBFILE, 0) & _REDUCED) and _SUB_DIRECTORIES in tags
    return begins_small or _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in _SENSOR_VALUES


def _tiff_entries(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the entries of a TIFF file's first directory: tag, first value or their offset."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    sign, big = "<" if order == "little" else ">", b"+" in data[2:4]
    # The layouts of the directory's offset, of its number of entries, and of an entry: tag, type, count and values.
    offset, count, entry = (sign + layout for layout in (("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")))
    # An offset may be higher than any that Python takes.
    with suppress(struct.error, OverflowError):
        (at,) = struct.unpack_from(offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(count, data, at)
        at += struct.calcsize(count)
        for start in range(at, min(at + entries * struct.calcsize(entry), len(data)), struct.calcsize(entry)):
            tag, type_, _, field = struct.unpack_from(entry, data, start)
            yield tag, int.from_bytes(field[:2] if type_ == _SHORT else field, order)


def open_preview(data: bytes) -> Image.Image:
    """Opens the largest preview in a RAW file, with EXIF's orientation and day. Raises ImageError."""
    try:
        import rawpy
    except ImportError as error:
        raise UnsupportedImage("RAW needs an extra package: pip install 'sketch-search[raw]'") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            preview, flip = raw.extract_thumb(), raw.sizes.flip
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    except rawpy.LibRawError as error:
        raise UndecodableImage("the RAW file has no preview that can be read; save the photo as JPEG") from error
    if isinstance(preview.data, bytes):
        # LibRaw reads past the end of a file that is cut short, where memory may hold a part of another photo.
        if preview.data[-_TAIL:] not in data:
            raise UndecodableImage("the RAW file is cut short; copy it from the camera again")
        picture: Image.Image = Image.open(io.BytesIO(preview.data), formats=("JPEG",))
    else:
        picture = Image.fromarray(np.array(preview.data).squeeze())
    # EXIF comes from the camera, where it may be damaged in any way, or else from what LibRaw tells of the RAW file.
    with suppress(Exception):
        exif = picture.getexif()
        exif.setdefault(ExifTags.Base.Orientation, _ORIENTATIONS[flip])
        # LibRaw tells the beginning of 1970 if the file does not say when it was taken.
        if (taken := str(exif.get(ExifTags.Base.DateTime, ""))) > "1971":
            exif.setdefault(ExifTags.Base.DateTimeOriginal, taken)
    return picture

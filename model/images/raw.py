"""Reads the preview that a camera has put into a RAW file."""

import io
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from sketch_search.model.errors import ImageTooLarge, UndecodableImage, UnsupportedImage
from sketch_search.model.images.tiff import is_whole

#: Endings of the names of RAW files, in lower case.
RAW_SUFFIXES = frozenset({".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"})
RAW_SIGNATURES = (b"II*\x00\x10\x00\x00\x00CR", b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00")
RAW_BRAND = b"crx "

# EXIF's orientation for each orientation of LibRaw, which counts from 0.
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)


def open_preview(data: bytes, max_pixels: int) -> Image.Image:
    """Opens a RAW file's largest preview, or develops it. Raises ImageError; ImageTooLarge."""
    try:
        import rawpy
    except ImportError as error:
        raise UnsupportedImage("RAW needs an extra package: pip install 'sketch-search[raw]'") from error
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
                if sizes.raw_width * sizes.raw_height > max_pixels:
                    raise ImageTooLarge.of(sizes.raw_width, sizes.raw_height, max_pixels) from None
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

"""Reads the strokes of a drawing, from the field of a form or from a PNG that the page saved."""

import zlib
from contextlib import suppress
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from sketch_search.model.images import MAX_STROKES, Stroke
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.query import StrokeBody

_STROKES = TypeAdapter(Annotated[tuple[StrokeBody, ...], Field(max_length=MAX_STROKES)])
_MOST_POINTS = 100_000
# How the text begins that page/drawing/saved.js adds to a PNG; its first line is the CRC-32 of all before the chunk.
_TEXT = b"iTXtsketch-search\0\0\0\0\0"


def saved_strokes(png: bytes) -> tuple[Stroke, ...]:
    """Reads the strokes that the page saved with a drawing; none of other files, or if a program changed it since."""
    picture, found, text = png.rpartition(_TEXT)
    if not found:
        return ()
    check, strokes, *_ = (*text.split(b"\n", 2), b"")
    with suppress(BadSearch):
        # The chunk begins with four bytes of its length.
        return read_strokes(strokes) if check == b"%d" % zlib.crc32(picture[:-4]) else ()
    return ()


def read_strokes(data: bytes) -> tuple[Stroke, ...]:
    """Reads the field ``strokes`` of a form, JSON. Raises BadSearch."""
    try:
        # A point takes several bytes, so that few of them can be too many.
        strokes = _STROKES.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        raise BadSearch(f"The form's strokes{place} cannot be read: {first['msg']}.") from error
    if sum(len(stroke.points) for stroke in strokes) > _MOST_POINTS:
        raise BadSearch(f"The strokes have more than {_MOST_POINTS:,} points; leave some out.")
    return tuple(Stroke(**dict(stroke)) for stroke in strokes)

"""Reads the strokes of a drawing, from JSON or from a PNG that the page saved, and the picture that JSON contains."""

import json
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sketch_search.model.errors import MalformedSketch
from sketch_search.model.images.drawing import MAX_STROKES, Stroke
from sketch_search.model.limits import MAX_NUMBERS, MAX_POINTS

#: The most characters of the word of a thing.
MAX_WORD = 100
# The most bytes of JSON: more than the points take that a browser writes with all digits.
_MAX_BYTES = 8 << 20
# How the text begins that page/drawing/saved.js adds to a PNG; its first line is the CRC-32 of all before the chunk.
_TEXT = b"iTXtsketch-search\0\0\0\0\0"


def saved_strokes(png: bytes) -> tuple[Stroke, ...]:
    """Reads the strokes that the page saved with a drawing; none of other files, or if a program changed it since."""
    at = png.rfind(_TEXT)
    if at >= 0:
        check, strokes, *_ = (*png[at + len(_TEXT) :].split(b"\n", 2), b"")
        with suppress(MalformedSketch):
            # The chunk begins with four bytes of its length.
            return read_strokes(strokes) if check == b"%d" % zlib.crc32(png[: at - 4]) else ()
    return ()


def read_strokes(data: bytes) -> tuple[Stroke, ...]:
    """Reads the field ``strokes`` of a form, JSON, up to its first error. Raises MalformedSketch."""
    if len(data) > _MAX_BYTES:
        raise MalformedSketch(f"the strokes have more than {_MAX_BYTES:,} bytes; leave some out")
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedSketch("the form's strokes cannot be read: they are not JSON") from error
    _require(isinstance(given, list), "", "a list")
    _require(len(given) <= MAX_STROKES, "", f"at most {MAX_STROKES:,} strokes")
    strokes, points = list[Stroke](), 0
    for number, one in enumerate(given):
        place = f"[{number}]"
        _require(isinstance(one, dict) and "points" in one, place, "an object with points")
        points += len(one["points"]) if isinstance(one["points"], list) else 0
        if points > MAX_POINTS:
            raise MalformedSketch(f"the strokes have more than {MAX_POINTS:,} points; leave some out")
        strokes.append(_read_stroke(one, place))
    return tuple(strokes)


def _read_stroke(given: Mapping[str, Any], place: str) -> Stroke:
    for name, value in given.items():
        _require(name in _FIELDS, place, f"none of {', '.join(_FIELDS)}")
        fits, wanted = _FIELDS[name]
        _require(fits(value), f"{place}[{name!r}]", wanted)
    for number, point in enumerate(given["points"]):
        there = f"{place}['points'][{number}]"
        _require(isinstance(point, list) and len(point) == 2, there, "x and y")
        for axis, share in enumerate(point):
            _require(_is_number(share, -1, 2), f"{there}[{axis}]", "a share of the paper's side, -1 to 2")
    return Stroke(**{**given, "points": tuple((float(x), float(y)) for x, y in given["points"])})


def _is_number(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and bool(least <= value <= most)


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "points": (lambda value: isinstance(value, list) and len(value) > 0, "a list of points"),
    "width": (lambda value: _is_number(value, 0, 1), "a share of the paper's width, 0 to 1"),
    "filled": (lambda value: isinstance(value, bool), "true or false"),
    "thing": (
        lambda value: value is None or (type(value) is int and 0 <= value < MAX_NUMBERS),
        f"a number below {MAX_NUMBERS}",
    ),
    "word": (lambda value: isinstance(value, str) and len(value) <= MAX_WORD, f"at most {MAX_WORD} characters"),
}


def _require(fine: bool, place: str, wanted: str) -> None:
    if not fine:
        raise MalformedSketch(f"the form's strokes{place} cannot be read: they must be {wanted}")


def picture_of_body(body: bytes) -> bytes:
    """Returns the picture in JSON, as base64 or as a data URL; other bytes as they are. Raises MalformedSketch."""
    # No picture begins with these.
    if body[:1] not in (b"{", b'"', b"["):
        return body
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body
    values = [*value.values()] if isinstance(value, dict) else [value]
    if len(values) != 1 or not isinstance(values[0], str):
        raise MalformedSketch(
            'JSON must be {"image": "the picture as base64"} and nothing else; put parameters into the query'
        )
    return values[0].encode("utf-8", "replace")

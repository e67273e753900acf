"""Whatever reads what strangers send takes twice the work for twice the bytes: counted, not timed."""

import importlib
import json
import pkgutil
import re
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from re import _constants as kinds
from re import _parser as parser
from types import FrameType
from typing import Any

import pytest

from sketch_search import service
from sketch_search.indexer import store
from sketch_search.model import images
from sketch_search.model.errors import ImageError
from sketch_search.model.images import (
    damaged,
    files,
    media_type,
    picture_of_body,
    read_strokes,
    saved_strokes,
    tiff,
    vector,
)
from tests.pictures import drawing, encoded

PNG, JPEG = encoded(drawing("star", 64)), encoded(drawing("star", 64), "JPEG")


class Counted(bytes):
    """Bytes that count how many of them are searched."""

    searched = 0

    def find(self, part: bytes, start: int = 0, end: int = sys.maxsize) -> int:  # type: ignore[override]
        at = super().find(part, start, end)
        Counted.searched += (min(end, len(self)) if at < 0 else at) - start
        return at


def work(function: Callable[[bytes], object], data: bytes) -> int:
    """Returns the lines that a function runs, the bytes that it takes line by line, and those that it searches."""
    count, before = 0, 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count, before
        now, peak = tracemalloc.get_traced_memory()
        count += 1 + max(0, peak - before)
        before = now
        tracemalloc.reset_peak()
        return trace

    Counted.searched, given, traced = 0, Counted(data), sys.gettrace()
    tracemalloc.start()
    sys.settrace(trace)
    try:
        with suppress(ImageError, ValueError):
            function(given)
    finally:
        sys.settrace(traced)
        tracemalloc.stop()
    return count + Counted.searched


def idats(count: int) -> bytes:
    return PNG[:33] + (struct.pack(">I", 4) + b"IDATabcd1234") * count


INPUTS: dict[str, tuple[Callable[[bytes], object], Callable[[int], bytes]]] = {
    "an unclosed document type": (vector.is_svg, lambda n: b"<!DOCTYPE a[" + b"<!--x>" * n),
    "document types in each other": (vector.is_svg, lambda n: b"<!DOCTYPE a[" * n + b">"),
    "a document type with many entities": (vector.is_svg, lambda n: b"<!DOCTYPE a[" + b"<!ENTITY b 'c'>" * n),
    "many comments": (vector.is_svg, lambda n: b"<!---->" * n),
    "spaces": (vector.is_svg, lambda n: b" " * n),
    "a data URL of percent signs": (files.read_image_file, lambda n: b"data:," + b"%" * 8 * n),
    "a data URL of wrong signs": (files.read_image_file, lambda n: b"data:," + b"%zz" * 8 * n),
    "base64 with spaces": (files.read_image_file, lambda n: b"A" * 64 + b"A " * 8 * n),
    "JSON of many keys": (picture_of_body, lambda n: json.dumps({str(number): "" for number in range(n)}).encode()),
    "strokes without points": (read_strokes, lambda n: b"[" + b"[]," * n + b"[]]"),
    "strokes with empty points": (read_strokes, lambda n: b'[{"points":[' + b"[]," * n + b"[]]}]"),
    "strokes in a PNG": (saved_strokes, lambda n: PNG + b"iTXtsketch-search\0\0\0\0\0" * n),
    "a PNG in many parts": (lambda data: damaged.repair(data, "image/png"), idats),
    "a JPEG of marks": (lambda data: damaged.repair(data, "image/jpeg"), lambda n: JPEG[:200] + b"\xff" * n),
    "a JPEG of restarts": (lambda data: damaged.repair(data, "image/jpeg"), lambda n: JPEG[:200] + b"\xff\xd0" * n),
    "a JPEG of segments": (files._drop_exif, lambda n: b"\xff\xd8" + b"\xff\xe1\0\2" * n),
    "a TIFF of one directory": (
        tiff.with_picture_first,
        lambda n: b"II*\0\x08\0\0\0\xff\xff" + b"\x11\1\4\0\1\0\0\0" * n,
    ),
    "the places of a TIFF, again and again": (
        media_type,
        lambda n: b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 273, 4, n, 8) * n,
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_twice_the_bytes_are_at_most_twice_the_work(name: str) -> None:
    function, made = INPUTS[name]
    # The first call imports, compiles and allocates what stays.
    work(function, made(10))
    once, twice = (work(function, made(n)) for n in (1000, 2000))
    assert twice <= 2.3 * once


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for package in (images, service, store):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".commands" in module.name or module.name.endswith(("__main__", "on_ray")):
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                for one in value if isinstance(value, tuple | list) else (value,):
                    for pattern in one if isinstance(one, tuple) else (one,):
                        if isinstance(pattern, re.Pattern):
                            yield f"{module.name}.{name}", pattern


def endless(parsed: Any) -> Iterator[Any]:
    """Yields what a parsed expression repeats without bound."""
    for kind, value in parsed:
        parts = [one for one in value if isinstance(one, parser.SubPattern)] if isinstance(value, tuple) else []
        if kind is kinds.BRANCH:
            parts = value[1]
        elif kind is kinds.ATOMIC_GROUP:
            parts = [value]
        if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT) and value[1] is kinds.MAXREPEAT:
            yield value[2]
        for part in parts:
            yield from endless(part)


def test_no_regular_expression_repeats_endlessly_what_repeats_endlessly() -> None:
    found = dict(patterns())
    assert len(found) > 20
    for name, pattern in found.items():
        for repeated in endless(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)):
            # What a sign begins can be repeated in one way only.
            assert not [*endless(repeated)] or repeated[0][0] is kinds.LITERAL, name

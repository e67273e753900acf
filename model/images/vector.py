"""Draws SVG files and pages of PDF files, and reads the strokes of a drawing from JSON or a PNG that the page saved."""

import base64
import io
import json
import math
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree
from xml.parsers import expat

from annotated_types import Len
from PIL import Image, ImageChops, ImageOps

from sketch_search.model.errors import MalformedSketch, UndecodableImage, UnsupportedImage
from sketch_search.model.images.drawing import MAX_STROKES, Stroke
from sketch_search.model.images.formats import PDF, SVG
from sketch_search.model.images.styles import HREFS, UNITS, Box, element_name, settle
from sketch_search.model.limits import MAX_POINTS
from sketch_search.model.words import why_no_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# Pixels of the longer side of the drawing, and how many times longer it may be than the other.
_SIDE, _MOST_LONGER = 512, 100
# Pixels of the longer side of a page. On a page whose mean side is so many pixels, a drawing is at least such a share.
_PAGE_SIDE, _TINY, _PAPER = 768, 0.1, 2048
# Elements that read something from elsewhere, or take long, and are left out; and what a person would miss of these.
_MISSED = {"text": "text", "foreignObject": "text", "image": "pictures of other files"}
_LEFT_OUT = {"feImage", "filter", "script", *_MISSED}
# The most elements that are drawn, with those that others stand for: a few that use each other may be any number.
_MAX_ELEMENTS = 100_000
# The most elements in each other; from some 250 on, resvg's stack overflows.
_MAX_DEPTH = 150
# The most bytes that a compressed file is unpacked to: so many, and so many for each of its own.
_UNPACKED, _UNPACKED_A_BYTE = 1 << 20, 32
# resvg draws nothing where it does not know a colour, so some of CSS is written as it reads it, and others are refused.
_COLOURS = ("fill", "stroke", "color", "stop-color", "style")
_VALUE = r"[^(),;{}]*(?:\([^()]*\)[^(),;{}]*)*"
_PLAIN = (
    (re.compile(rf"\bvar\(\s*--[^(),;{{}}]*,({_VALUE})\)"), r"\1"),
    (re.compile(r"\bvar\([^()]*\)"), "black"),
    (re.compile(rf"\blight-dark\(({_VALUE}),{_VALUE}\)"), r"\1"),
    (re.compile(r"\b(?:rgb|hsl)a?\([^()/]*/\s*[0.]+%?\s*\)"), "none"),
    (re.compile(r"\b(rgb|hsl)a?\(([^()/]*)/[^()]*\)"), r"\1(\2)"),
    # Without its filter, an element would not be drawn.
    (re.compile(r"\bfilter\s*:"), "left-out:"),
)
_UNKNOWN = re.compile(r"\b(color|color-mix|hwb|lab|lch|oklab|oklch)\(")
_SPACE = "{http://www.w3.org/2000/svg}"
_SIZE = re.compile(r"\s*\+?(\d*\.?\d+(?:[eE]\+?\d+)?)\s*([a-zA-Z]*)\s*$")
_LONGEST_SIZE = 64


def is_svg(head: bytes) -> bool:
    """Returns True if the first element of a file, which may be compressed, is that of an SVG."""
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(31).decompress(head, 1 << 16)
        except zlib.error:
            return False
    names, parser = list[str](), expat.ParserCreate()
    parser.StartElementHandler = lambda name, _: names.append(name)
    with suppress(expat.ExpatError):
        parser.Parse(_bytes_of(head[: 1 << 16]))
    return bool(names) and names[0].rpartition(":")[2] == "svg"


def _bytes_of(text: bytes) -> bytes:
    """Returns XML as UTF-8 if it is UTF-16, and without its mark."""
    known = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
    if encoding := known.get(text[:2]):
        text = re.sub(r"^<\?xml.*?\?>", "", text.decode(encoding, "replace")).encode("utf-8", "replace")
    return text.removeprefix(b"\xef\xbb\xbf")


def draw_svg(
    data: bytes, opened: Callable[[bytes], Image.Image], declare: Callable[[int], None] = lambda pixels: None
) -> Image.Image:
    """Draws an SVG on nothing, 512 pixels long; ``opened`` opens pictures that it contains. Raises ImageError.

    declare: is told how much work it is, by the pixels of a photo: one for each byte.
    """
    SVG.decoder()
    if data.startswith(b"\x1f\x8b"):
        unpacker = zlib.decompressobj(31)
        data = unpacker.decompress(data, _UNPACKED + _UNPACKED_A_BYTE * len(data))
        if not unpacker.eof:
            raise UndecodableImage("the SVG file is cut short, or very large; save it as PNG")
    declare(max(_SIDE**2, len(data)))
    try:
        root = ElementTree.fromstring(_bytes_of(data))
    except ElementTree.ParseError as error:
        raise UndecodableImage(f"the SVG file is damaged: {error}") from error
    if "}" not in root.tag:
        # One that was copied out of a page.
        root.set("xmlns", _SPACE[1:-1])
    if _weight(root) > _MAX_ELEMENTS:
        raise UndecodableImage(f"the SVG file draws more than {_MAX_ELEMENTS:,} elements; save it as PNG")
    missing = _strip(root, opened)
    box, pixels = _size(root)
    settle(root, box, pixels, partial(_measured, box))
    scale = _SIDE / max(box[2:])
    root.set("width", f"{max(1, round(box[2] * scale))}")
    root.set("height", f"{max(1, round(box[3] * scale))}")
    picture = _rendered(root)

    def part(left: float, top: float, right: float, bottom: float, pixels: int) -> Image.Image:
        declare(_PAPER**2)
        sides = (right - left) * box[2], (bottom - top) * box[3]
        root.set("viewBox", f"{box[0] + left * box[2]} {box[1] + top * box[3]} {sides[0]} {sides[1]}")
        for name, side in zip(("width", "height"), sides, strict=True):
            root.set(name, f"{max(1, round(pixels * side / max(sides)))}")
        return _rendered(root)

    picture = _enlarged(picture, part)
    if missing and picture.convert("RGBA").getchannel("A").getextrema() == (0, 0):
        raise UnsupportedImage(f"the SVG file draws nothing but {missing}, which is not read; save it as PNG")
    return picture


def _enlarged(picture: Image.Image, part: Callable[[float, float, float, float, int], Image.Image]) -> Image.Image:
    """Returns the page with a tiny drawing up to a hundredth of it in size, as on the endless paper of some programs.

    part: draws what lies between left, top, right and bottom, as shares of the sides, so many pixels long.
    """
    # At its edge, a page may be covered by half.
    (width, height), inner = picture.size, picture.crop((1, 1, max(2, picture.width - 1), max(2, picture.height - 1)))
    paper = inner.getpixel((0, 0))
    box = ImageChops.difference(inner, Image.new(inner.mode, inner.size, paper)).getbbox(alpha_only=False)
    if not box or max(box[2] - box[0], box[3] - box[1]) >= _TINY * math.sqrt(width * height):
        return picture
    left, top, right, bottom = box[0], box[1], min(width, box[2] + 2), min(height, box[3] + 2)
    scale = _PAPER / math.sqrt(width * height)
    page = Image.new(picture.mode, (math.ceil(width * scale), math.ceil(height * scale)), paper)
    drawn = part(left / width, top / height, right / width, bottom / height, int(_TINY * _PAPER)).convert(picture.mode)
    middle = (left + right) / 2 * scale, (top + bottom) / 2 * scale
    sides = zip(middle, drawn.size, page.size, strict=True)
    x, y = (min(max(0, round(at - side / 2)), max(0, whole - side)) for at, side, whole in sides)
    page.paste(drawn, (x, y))
    return page


def _rendered(root: ElementTree.Element) -> Image.Image:
    resvg_py = SVG.decoder()
    try:
        # Without a folder of resources, and without the system's fonts.
        png = resvg_py.svg_to_bytes(svg_string=ElementTree.tostring(root, "unicode"), skip_system_fonts=True, dpi=96)
    except ValueError as error:
        raise UndecodableImage(f"the SVG file is damaged: {error}") from error
    return Image.open(io.BytesIO(png), formats=("PNG",))


def _measured(box: Box, element: ElementTree.Element) -> Box:
    """Returns the box of what an element draws without its own transform, to a hundredth of the drawing."""
    left, top, width, height = box
    own = deepcopy(element)
    own.attrib.pop("transform", None)
    own.set("style", f"fill: #000; stroke: #000; stroke-width: {max(width, height) / _SIDE}")
    sheet = {"viewBox": f"{left - width} {top - height} {3 * width} {3 * height}", "width": f"{3 * _SIDE}"}
    root = ElementTree.Element(f"{_SPACE}svg", {**sheet, "height": f"{3 * _SIDE * height / width}"})
    root.append(own)
    x, y, right, bottom = _rendered(root).getchannel("A").getbbox() or (_SIDE, _SIDE, 2 * _SIDE, 2 * _SIDE)
    # Half of the line is outside.
    unit = width / _SIDE
    return (
        left - width + (x + 0.5) * unit,
        top - height + (y + 0.5) * unit,
        (right - x - 1) * unit,
        (bottom - y - 1) * unit,
    )


def _plain(text: str) -> str:
    """Writes colours of CSS as resvg reads them: variables as what stands in for them, else black."""
    for pattern, plain in _PLAIN:
        text = pattern.sub(plain, text)
    if unknown := _UNKNOWN.search(text):
        raise UnsupportedImage(f"the SVG file has colours by {unknown[1]}(), which are not supported; save it as PNG")
    return text


def _strip(root: ElementTree.Element, opened: Callable[[bytes], Image.Image]) -> str:
    """Removes what the file does not draw itself, and names what a person would miss."""
    waiting, missing = [root], ""
    while waiting:
        element = waiting.pop()
        element.attrib.pop("filter", None)
        for name in element.attrib.keys() & _COLOURS:
            element.set(name, _plain(element.attrib[name]))
        if element_name(element) == "style":
            element.text = _plain("".join(element.itertext()))
        for child in [*element]:
            name = element_name(child)
            source = next((child.attrib[href] for href in HREFS if href in child.attrib), "#")
            embedded = name == "image" and source.startswith("data:")
            if embedded or name == "a":
                for href in HREFS:
                    child.attrib.pop(href, None)
            if embedded:
                child.set("href", _embedded(source, opened))
            elif name != "a" and (name in _LEFT_OUT or not source.startswith("#")):
                missing = _MISSED.get(name, missing)
                element.remove(child)
            else:
                waiting.append(child)
    return missing


def _embedded(source: str, opened: Callable[[bytes], Image.Image]) -> str:
    """Opens a picture within the file as any other, and returns it as the address of a small PNG."""
    head, _, text = source.partition(",")
    data = unquote_to_bytes(text)
    picture = opened(base64.b64decode(data) if head.endswith(";base64") else data)
    picture = ImageOps.exif_transpose(picture).convert("RGBA")
    picture.thumbnail((2 * _SIDE, 2 * _SIDE))
    png = io.BytesIO()
    picture.save(png, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _weight(root: ElementTree.Element) -> int:
    by_id = {element.get("id"): element for element in root.iter()}
    count, waiting = 0, [iter([root])]
    while waiting and count <= _MAX_ELEMENTS:
        element = next(waiting[-1], None)
        if element is None:
            waiting.pop()
            continue
        count += 1
        used = next((element.get(name) for name in HREFS if element.get(name)), None)
        instance = by_id.get(used[1:]) if used is not None and element_name(element) == "use" else None
        waiting.append(iter([*element] if instance is None else [*element, instance]))
        if len(waiting) > _MAX_DEPTH:
            raise UndecodableImage(f"the SVG file is damaged: its elements are more than {_MAX_DEPTH} in each other")
    return count


def _size(root: ElementTree.Element) -> tuple[Box, float]:
    """Returns the viewBox of a drawing, and how many CSS pixels its longer side has in a browser."""
    sizes = [_SIZE.match(root.get(name, "")[:_LONGEST_SIZE]) for name in ("width", "height")]
    pixels = [float(size[1]) * UNITS[size[2].lower()] for size in sizes if size and size[2].lower() in UNITS]
    if "viewBox" not in root.attrib and len(pixels) == 2:
        root.set("viewBox", f"0 0 {pixels[0]:.9g} {pixels[1]:.9g}")
    try:
        left, top, width, height = map(float, re.split(r"[\s,]+", root.get("viewBox", "").strip()))
    except ValueError as error:
        raise UndecodableImage("the SVG file does not state its size; give it a viewBox, or save it as PNG") from error
    if not (math.isfinite(width + height) and min(width, height) > 0):
        raise UndecodableImage("the SVG file has no size; give it a viewBox, or save it as PNG")
    if max(width, height) > _MOST_LONGER * min(width, height):
        raise UndecodableImage(f"the SVG file is more than {_MOST_LONGER} times longer than wide; save it as PNG")
    return (left, top, width, height), max(pixels, default=0.0) or _SIDE


def draw_pdf(data: bytes, choose: Callable[[int, Callable[[int], Image.Image]], Image.Image]) -> Image.Image:
    """Draws a page of a PDF on white. choose: it gets how many there are, and what draws one. Raises ImageError."""
    pypdfium2 = PDF.decoder()
    try:
        with pypdfium2.PdfDocument(data) as document:

            def draw(number: int) -> Image.Image:
                page = document[number]
                scale = _PAGE_SIDE / max(1.0, *page.get_size())
                width, height = page.get_size()

                def part(left: float, top: float, right: float, bottom: float, pixels: int) -> Image.Image:
                    closer = pixels / max((right - left) * width, (bottom - top) * height)
                    crop = (left * width, (1 - bottom) * height, (1 - right) * width, top * height)
                    return rendered(scale=closer, crop=crop)

                def rendered(**options: Any) -> Image.Image:
                    picture: Image.Image = page.render(may_draw_forms=False, **options).to_pil().convert("RGB")
                    return picture

                return _enlarged(rendered(scale=scale), part)

            if not len(document):
                raise UndecodableImage("the PDF file has no pages")
            return choose(len(document), draw)
    except pypdfium2.PdfiumError as error:
        raise UndecodableImage(f"the PDF file cannot be read ({error}); save the drawing as PNG") from error


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
    # Imported late: a process that only decodes photos needs it never.
    from pydantic import ValidationError

    if len(data) > _MAX_BYTES:
        raise MalformedSketch(f"the strokes have more than {_MAX_BYTES:,} bytes; leave some out")
    # Each point has a comma, and one behind it. Errors of millions of numbers would fill the memory.
    too_many = f"the strokes have more than {MAX_POINTS:,} points; leave some out"
    if data.count(b",") > 3 * MAX_POINTS:
        raise MalformedSketch(too_many)
    try:
        strokes = _strokes().validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        raise MalformedSketch(f"the form's strokes{place} cannot be read: {first['msg']}") from error
    if sum(len(stroke.points) for stroke in strokes) > MAX_POINTS:
        raise MalformedSketch(too_many)
    for word in {stroke.word for stroke in strokes if stroke.word.strip()}:
        if fault := why_no_name(word):
            raise MalformedSketch(f"the word of a stroke {fault}")
    return strokes


@cache
def _strokes() -> "TypeAdapter[tuple[Stroke, ...]]":
    from pydantic import FailFast, TypeAdapter

    return TypeAdapter(Annotated[tuple[Stroke, ...], Len(0, MAX_STROKES), FailFast()])


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
        expected = '{"image": "the picture as base64"} and nothing else'
        raise MalformedSketch(f"JSON must be {expected}; put parameters into the query")
    return values[0].encode("utf-8", "replace")

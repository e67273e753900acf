"""Draws an SVG sketch as pixels, of its own shapes alone: no file is read for it, no host is asked."""

import io
import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from PIL import Image

from sketch_search.model.errors import UndecodableImage, UnsupportedImage

SVG = "image/svg+xml"
# Pixels of the longer side of the drawing, and how many times longer it may be than the other.
_SIDE, _MOST_LONGER = 512, 100
# Elements that read something from elsewhere, or take long, and are left out.
_LEFT_OUT = {"image", "feImage", "filter", "foreignObject", "script", "style", "text"}
# The most elements that are drawn, with those that others stand for: a few that use each other may be any number.
_MAX_ELEMENTS = 100_000
_HREFS = ("href", "{http://www.w3.org/1999/xlink}href")
_NUMBER = re.compile(r"\s*([0-9.]+)\s*(px)?\s*$")


def is_svg(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<" and b"<svg" in head


def drawn(data: bytes) -> Image.Image:
    """Draws an SVG, transparent where nothing is drawn; its longer side has 512 pixels. Raises ImageError."""
    try:
        import resvg_py
    except ImportError as error:
        raise UnsupportedImage("SVG needs an extra package: pip install 'sketch-search[server]'") from error
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise UndecodableImage(f"the SVG file is damaged: {error}") from error
    _strip(root)
    if _weight(root) > _MAX_ELEMENTS:
        raise UndecodableImage(f"the SVG file draws more than {_MAX_ELEMENTS:,} elements; save it as PNG")
    width, height = _size(root)
    scale = _SIDE / max(width, height)
    root.set("width", f"{max(1, round(width * scale))}")
    root.set("height", f"{max(1, round(height * scale))}")
    try:
        # Without a folder of resources, and without the system's fonts.
        png = resvg_py.svg_to_bytes(svg_string=ElementTree.tostring(root, "unicode"), skip_system_fonts=True)
    except ValueError as error:
        raise UndecodableImage(f"the SVG file is damaged: {error}") from error
    return Image.open(io.BytesIO(png), formats=("PNG",))


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _strip(root: ElementTree.Element) -> None:
    """Removes elements that the file does not draw itself."""
    waiting = [root]
    while waiting:
        element = waiting.pop()
        for child in [*element]:
            if _name(child) in _LEFT_OUT or any(child.get(name, "#")[:1] != "#" for name in _HREFS):
                element.remove(child)
            else:
                waiting.append(child)


def _weight(root: ElementTree.Element) -> int:
    """Counts the elements that are drawn, at most one more than may be."""
    by_id = {element.get("id"): element for element in root.iter()}
    count, waiting = 0, [iter([root])]
    while waiting and count <= _MAX_ELEMENTS:
        element = next(waiting[-1], None)
        if element is None:
            waiting.pop()
            continue
        count += 1
        waiting.append(_drawn_for(element, by_id))
        if len(waiting) > 500:
            raise UndecodableImage("the SVG file is damaged: its elements contain each other")
    return count


def _drawn_for(
    element: ElementTree.Element, by_id: dict[str | None, ElementTree.Element]
) -> Iterator[ElementTree.Element]:
    yield from element
    used = next((element.get(name) for name in _HREFS if element.get(name)), None)
    if _name(element) == "use" and used is not None and used[1:] in by_id:
        yield by_id[used[1:]]


def _size(root: ElementTree.Element) -> tuple[float, float]:
    """Returns width and height in any unit. Raises ImageError."""
    if "viewBox" not in root.attrib:
        sizes = [_NUMBER.match(root.get(name, "")) for name in ("width", "height")]
        numbers = [found[1] if found else "" for found in sizes]
        if all(numbers):
            root.set("viewBox", f"0 0 {numbers[0]} {numbers[1]}")
    try:
        _, _, width, height = map(float, re.split(r"[\s,]+", root.get("viewBox", "").strip()))
    except ValueError as error:
        raise UndecodableImage("the SVG file does not state its size; give it a viewBox, or save it as PNG") from error
    if not (math.isfinite(width + height) and min(width, height) > 0):
        raise UndecodableImage("the SVG file has no size; give it a viewBox, or save it as PNG")
    if max(width, height) > _MOST_LONGER * min(width, height):
        raise UndecodableImage(f"the SVG file is more than {_MOST_LONGER} times longer than wide; save it as PNG")
    return width, height

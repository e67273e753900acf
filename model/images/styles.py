"""What CSS and animations leave the elements of an SVG with in the end, written as resvg reads it."""

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

Element = ElementTree.Element
Declared = dict[str, str]
# Left, top, width and height, in the element's own units.
Box = tuple[float, float, float, float]
_Matrix = NDArray[np.float64]

# A drawing without any of these looks the same by resvg and in a browser.
_NEEDED = re.compile(
    r"vector-effect|keyframes|<(\w+:)?(set|animate)|transform-|\b(transform|translate|rotate|scale)\s*:", re.I
)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_KEYFRAMES = re.compile(r"@(?:-\w+-)?keyframes\s+[\"']?([\w-]+)[\"']?\s*\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}")
_MEDIA = re.compile(r"@(?:media|supports)([^{};]*)\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}")
_ELSEWHERE = re.compile("print|dark|width|height|reduce")
_IMPORTANT = re.compile(r"\b((?:transform|stroke-|opacity|visibility|display)[^;{}]*?)!\s*important")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_COMPOUND = re.compile(r"(\*|[\w-]+)?((?:[.#][\w-]+)*)$")
_FUNCTION = re.compile(r"([a-z0-9]+)\(([^()]*)\)")
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(%|[a-z]*)")
_ANGLES = {"deg": 1.0, "grad": 0.9, "rad": 180 / math.pi, "turn": 360.0}
# CSS pixels of each unit of lengths.
UNITS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}
UNITS |= {"em": 16.0, "rem": 16.0, "ex": 8.0}
_SIDES = {"left": "0%", "top": "0%", "center": "50%", "right": "100%", "bottom": "100%"}
_TRANSFORMS = ("translate", "rotate", "scale", "transform")
_DASHES = {"stroke-dasharray", "stroke-dashoffset"}
_SHAPES = {"d", "points", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "width", "height"}
_SHOWN = {"visibility": "visible", "display": "inline"}
HREFS = ("href", "{http://www.w3.org/1999/xlink}href")
# In shares of the drawing's longer side: a thinner line is hardly seen.
_THINNEST = 1 / 512


def settle(root: Element, box: Box, viewport: float, measure: Callable[[Element], Box]) -> None:
    """Writes into the elements what resvg reads neither of CSS nor of SMIL: transforms with units, strokes that do not
    scale, and the end of each animation, with which a drawing that draws itself is complete.

    box: the root's viewBox. viewport: CSS pixels of its longer side. measure: finds the box of what an element draws.
    """
    if not _NEEDED.search(ElementTree.tostring(root, "unicode")):
        return
    for element in root.iter():
        # These would come before what is written here.
        if element_name(element) == "style":
            element.text = _IMPORTANT.sub(r"\1", "".join(element.itertext()))
        elif "style" in element.attrib:
            element.set("style", _IMPORTANT.sub(r"\1", element.attrib["style"]))
    sheet, parents = _Sheet(root), {child: parent for parent in root.iter() for child in parent}
    moved = _animated(root, parents)
    # Of each element: the transform into CSS pixels, and the width of its stroke.
    reached: dict[Element, tuple[_Matrix, str]] = {}
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        outer, width = reached.get(parents.get(element, root), (np.eye(3) * viewport / max(box[2:]), "1"))
        css = sheet.declared(element, parents)
        own = {**element.attrib, **css}
        end = sheet.end(own) | _end(moved.get(element, []), own)
        for name in end.keys() & _SHAPES:
            element.set(name, re.sub(r"^path\([\"'](.*)[\"']\)$", r"\1", end.pop(name)))
        css, own = css | end, own | end
        matrix = None if element is root else _transform(css, element, box, measure)
        if matrix is not None:
            end["transform"] = f"matrix({' '.join(f'{value:.9g}' for value in matrix[:2].T.flat)})"
            end["transform-origin"] = "0 0"
        inner = outer @ (_matrix(element.get("transform", ""), box[2:]) if matrix is None else matrix)
        reached[element] = (inner, own.get("stroke-width", width))
        if own.get("vector-effect") == "non-scaling-stroke":
            pixels = max(_lengths(reached[element][1], viewport)[:1] or [1.0])
            zoom = math.sqrt(abs(np.linalg.det(inner[:2, :2]))) or 1.0
            end["stroke-width"] = f"{max(pixels, _THINNEST * viewport) / zoom:.9g}"
        if end:
            added = "; ".join(f"{name}: {value}" for name, value in end.items())
            element.set("style", f"{element.get('style', '').rstrip('; ')}; {added}".lstrip("; "))


class _Sheet:
    """The rules and keyframes of all style elements, as far as classes, ids, names and nesting select elements."""

    def __init__(self, root: Element) -> None:
        text = " ".join("".join(one.itertext()) for one in root.iter() if element_name(one) == "style")
        text = _COMMENT.sub("", text)
        self._frames = {name: _RULE.findall(frames) for name, frames in _KEYFRAMES.findall(text)}
        text = _MEDIA.sub(lambda group: "" if _ELSEWHERE.search(group[1]) else group[2], _KEYFRAMES.sub("", text))
        # By the last part of the selector, as which an element is looked up.
        self._rules: dict[str, list[tuple[tuple[int, int, int], int, list[str], Declared]]] = {}
        for order, (selectors, body) in enumerate(_RULE.findall(text)):
            for selector in selectors.split(","):
                parts = re.findall(r"[>+~]|[^\s>+~]+", selector)
                if parts and all(part == ">" or _COMPOUND.match(part) for part in parts):
                    rank = (selector.count("#"), selector.count("."), sum(part[0].isalpha() for part in parts))
                    key = re.split(r"(?=[.#])", parts[-1])[-1]
                    self._rules.setdefault(key, []).append((rank, order, parts, _declarations(body)))

    def declared(self, element: Element, parents: dict[Element, Element]) -> Declared:
        keys = [
            "*",
            element_name(element),
            f"#{element.get('id')}",
            *(f".{one}" for one in element.get("class", "").split()),
        ]
        rules = [rule for key in keys for rule in self._rules.get(key, ())]
        css: Declared = {}
        for *_, parts, declarations in sorted(rules, key=lambda rule: rule[:2]):
            if _selects(parts, element, parents):
                css |= declarations
        return css | _declarations(element.get("style", ""))

    def end(self, own: Declared) -> Declared:
        """Returns what the keyframes of an element's animations leave it with."""
        said = " ".join(value for name, value in own.items() if name.startswith("animation"))
        steps = [
            (name, value, any(step.strip() in ("to", "100%") for step in at.split(",")))
            for frames in map(self._frames.get, re.findall(r"[\w-]+", said))
            for at, body in frames or ()
            for name, value in _declarations(body).items()
        ]
        stays, loops = bool(re.search("forwards|both|infinite", said)), "infinite" in said
        return _end([(name, value if last else "", stays, loops) for name, value, last in steps], own)


def _end(steps: list[tuple[str, str, bool, bool]], own: Declared) -> Declared:
    """Returns the last values of (name, value, whether it stays, whether it begins again); "": one on the way."""
    end: Declared = {}
    for name, value, stays, loops in steps:
        if name in _DASHES:
            end |= {"stroke-dasharray": "none", "stroke-dashoffset": "0"}
        elif value and (stays or _hides(name, own.get(name, ""))):
            end[name] = _SHOWN.get(name, "1") if loops and _hides(name, value) else value
    return end


def _hides(name: str, value: str) -> bool:
    return (name.endswith("opacity") and not any(_lengths(value, 1))) or value in ("hidden", "collapse", "none")


def _animated(root: Element, parents: dict[Element, Element]) -> dict[Element, list[tuple[str, str, bool, bool]]]:
    """Returns the steps of SMIL's animations, in their order, by the element that they change."""
    by_id = {f"#{element.get('id')}": element for element in root.iter()}
    steps: dict[Element, list[tuple[str, str, bool, bool]]] = {}
    for one in root.iter():
        kind = element_name(one)
        if kind not in ("animate", "set", "animateTransform"):
            continue
        target = next((by_id.get(one.attrib[href]) for href in HREFS if href in one.attrib), parents[one])
        name, value = one.get("attributeName", ""), one.get("to") or one.get("values", "").strip("; ").split(";")[-1]
        loops = "indefinite" in (one.get("repeatCount"), one.get("repeatDur"))
        stays = loops or one.get("fill") == "freeze" or (kind == "set" and "dur" not in one.attrib)
        if kind == "animateTransform" and target is not None and value:
            before = f"{target.get('transform', '')} " if one.get("additive") == "sum" else ""
            value = f"{before}{one.get('type', 'translate')}({value})"
        if target is not None:
            steps.setdefault(target, []).append((name, value.strip(), stays, loops))
    return steps


def _selects(parts: list[str], element: Element, parents: dict[Element, Element]) -> bool:
    *before, last = parts
    name, rest = ((found := _COMPOUND.match(last)) and found.groups("*")) or ("", "")
    given = {f"#{element.get('id')}", *(f".{one}" for one in element.get("class", "").split())}
    if name not in ("*", element_name(element)) or not {*re.findall(r"[.#][\w-]+", rest)} <= given:
        return False
    direct = before[-1:] == [">"]
    before, outer = before[: len(before) - direct], parents.get(element)
    while before and outer is not None:
        if _selects(before, outer, parents):
            return True
        outer = None if direct else parents.get(outer)
    return not before


def _transform(css: Declared, element: Element, box: Box, measure: Callable[[Element], Box]) -> _Matrix | None:
    """Returns the transform of an element by CSS; None if its attribute ``transform`` says all."""
    said = {name: css[name].lower() for name in _TRANSFORMS if css.get(name, "none") != "none"}
    origin = css.get("transform-origin", element.get("transform-origin", ""))
    if not (said or origin or "transform" in css):
        return None
    filled = css.get("transform-box", element.get("transform-box", "view-box")) not in ("view-box", "border-box")
    left, top, *size = measure(element) if filled else (0.0, 0.0, *box[2:])
    names = [_SIDES.get(part, part) for part in origin.split()]
    if origin.split()[:1] and origin.split()[0] in ("top", "bottom"):
        names.reverse()
    names = [*names, *["50%" if names else "0"] * 2][:2]
    x, y = (_lengths(name, side)[0] for name, side in zip(names, size, strict=True))
    functions = [f"{name}({said[name]})" for name in _TRANSFORMS[:3] if name in said]
    functions.append(css["transform"].lower() if "transform" in css else element.get("transform", ""))
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = (left + x, top + y), (-left - x, -top - y)
    moved: _Matrix = there @ _matrix(" ".join(functions), (size[0], size[1])) @ back
    return moved


def _matrix(functions: str, size: tuple[float, float]) -> _Matrix:
    """Returns the product of functions of CSS or of SVG. size: what 100% is of each axis."""
    whole = np.eye(3)
    for name, inside in _FUNCTION.findall(functions.lower()):
        pairs = _NUMBER.findall(inside) or [("0", "")]
        two = (pairs[0], pairs[min(1, len(pairs) - 1)])
        x, y = (_length(number, unit, side) for (number, unit), side in zip(two, size, strict=True))
        wide, high = (_length(number, unit, 1) for number, unit in two)
        first, second = (math.radians(float(number) * _ANGLES.get(unit, 1)) for number, unit in (*pairs, ("0", ""))[:2])
        cos, sin, given = math.cos(first), math.sin(first), [float(number) for number, _ in pairs]
        match name.removesuffix("3d"), len(pairs):
            case "translate", n:
                one = [1, 0, 0, 1, x, y if n > 1 else 0]
            case "translatex", _:
                one = [1, 0, 0, 1, x, 0]
            case "translatey", _:
                one = [1, 0, 0, 1, 0, y]
            case "scale", _:
                one = [wide, 0, 0, high, 0, 0]
            case "scalex", _:
                one = [wide, 0, 0, 1, 0, 0]
            case "scaley", _:
                one = [1, 0, 0, high, 0, 0]
            case (("rotate" | "rotatez"), n):
                # SVG's may be around a point.
                u, v = given[1:] if n == 3 else (0.0, 0.0)
                one = [cos, sin, -sin, cos, u - cos * u + sin * v, v - sin * u - cos * v]
            case (("skew" | "skewx"), _):
                one = [1, math.tan(second) if name == "skew" else 0, math.tan(first), 1, 0, 0]
            case "skewy", _:
                one = [1, math.tan(first), 0, 1, 0, 0]
            case "matrix", 6:
                one = given
            case "matrix", 16:
                one = [given[at] for at in (0, 1, 4, 5, 12, 13)]
            case _:
                continue
        whole = whole @ np.array([one[0::2], one[1::2], [0, 0, 1]])
    return whole


def _length(number: str, unit: str, whole: float) -> float:
    return float(number) * (whole / 100 if unit == "%" else UNITS.get(unit, 1.0))


def _lengths(text: str, whole: float) -> list[float]:
    return [_length(number, unit, whole) for number, unit in _NUMBER.findall(text.lower())]


def _declarations(body: str) -> Declared:
    pairs = (one.partition(":") for one in body.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if value.strip()}


def element_name(element: Element) -> str:
    """Returns the name of an element without its namespace; "" of a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""

"""Writes the style sheets of an SVG into its elements, as a browser applies them on light paper."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias
from xml.etree import ElementTree

import cssselect2
import tinycss2
from tinycss2 import color5

from sketch_search.model.errors import UndecodableImage, UnsupportedImage

Declarations: TypeAlias = list[tuple[str, list[Any], bool]]
_COLOURS = frozenset({"fill", "stroke", "color", "stop-color"})
# Rules within these media hold for a picture on a screen.
_MEDIA = frozenset({"", "all", "screen", "not print", "(prefers-color-scheme:light)"})
# The most characters of a value, and variables within variables: a few that name each other may be any number.
_MAX_VALUE, _MAX_DEPTH = 10_000, 20


def inline(root: ElementTree.Element) -> None:
    """Replaces classes, selectors, variables and new kinds of colours by plain styles. Raises ImageError."""
    sheets = ["".join(style.itertext()) for style in root.iter() if style.tag.endswith("style")]
    texts = [text for element in root.iter() for name, text in element.items() if name in _COLOURS or name == "style"]
    if not any("(" in text for text in texts) and not any(map(str.strip, sheets)):
        return
    matcher = cssselect2.Matcher()
    for rule in (rule for sheet in sheets for rule in _rules(tinycss2.parse_stylesheet(sheet, True, True))):
        try:
            selectors = cssselect2.compile_selector_list(rule.prelude)
        except cssselect2.SelectorError:
            continue  # as browsers do
        declarations = _declarations(rule.content)
        for selector in selectors:
            matcher.add_selector(selector, declarations)
    variables: dict[Any, Mapping[str, list[Any]]] = {}
    for element in cssselect2.ElementWrapper.from_xml_root(root).iter_subtree():
        xml = element.etree_element
        layers = [
            [
                (name, tinycss2.parse_component_value_list(text), False)
                for name, text in xml.items()
                if name in _COLOURS
            ],
            *(match[3] for match in matcher.match(element) if match[2] is None),
            _declarations(xml.get("style", "")),
        ]
        # Those that are important come last.
        ordered = sorted((one for layer in layers for one in layer), key=lambda one: one[2])
        own = {name: tokens for name, tokens, _ in ordered if name.startswith("--")}
        inherited = variables.get(element.parent and element.parent.etree_element, {})
        variables[xml] = {**inherited, **own} if own else inherited
        styles = dict[str, str]()
        for name, tokens, _ in ordered:
            # Filters are left out.
            if name not in own and name != "filter" and (text := _resolve(tokens, variables[xml])) is not None:
                styles[name] = _colour(text) if name in _COLOURS else text
        if styles or "style" in xml.attrib:
            xml.set("style", "; ".join(f"{name}: {text}" for name, text in styles.items()))


def _rules(rules: Iterable[Any]) -> Iterator[Any]:
    for rule in rules:
        if rule.type == "qualified-rule":
            yield rule
        elif rule.type == "at-rule" and rule.lower_at_keyword == "media" and rule.content is not None:
            medium = tinycss2.serialize(rule.prelude).strip().lower().replace(": ", ":")
            if medium in _MEDIA:
                yield from _rules(tinycss2.parse_rule_list(rule.content, True, True))


def _declarations(content: Any) -> Declarations:
    parsed = tinycss2.parse_blocks_contents(content, True, True)
    return [(one.name, one.value, one.important) for one in parsed if one.type == "declaration"]


def _resolve(tokens: Iterable[Any], variables: Mapping[str, list[Any]], depth: int = 0) -> str | None:
    """Writes a value without var() and light-dark(); None if a variable has no value."""
    text = ""
    for token in tokens:
        part: str | None = token.serialize()
        if token.type == "function":
            name, arguments = token.lower_name, token.arguments
            at = next((at for at, one in enumerate(arguments) if one == ","), len(arguments))
            first = tinycss2.serialize(arguments[:at]).strip()
            if name == "var":
                inner = variables.get(first, arguments[at + 1 :] if at < len(arguments) else None)
                part = None if inner is None else _resolve(inner, variables, depth + 1)
            else:
                part = _resolve(arguments[:at] if name == "light-dark" else arguments, variables, depth + 1)
                part = part if name == "light-dark" or part is None else f"{name}({part})"
        if part is None:
            return None
        text += part
        if len(text) > _MAX_VALUE or depth > _MAX_DEPTH:
            raise UndecodableImage("the SVG file is damaged: its variables contain each other")
    return text.strip()


def _colour(text: str) -> str:
    """Writes a colour in the older form; what is none stays."""
    if "(" not in text:
        return text
    try:
        colour = color5.parse_color(text)
        if colour not in (None, "currentcolor"):
            red, green, blue = (round(255 * min(1.0, max(0.0, value))) for value in colour.to("srgb")[:3])
            return f"rgba({red},{green},{blue},{colour.alpha:g})"
    except NotImplementedError:
        colour = None
    kind = text.partition("(")[0].strip().lower()
    if colour is None and kind not in ("url", "rgb", "rgba", "hsl", "hsla"):
        raise UnsupportedImage(f"the SVG file has colours by {kind}(), which are not supported; save it as PNG")
    return text

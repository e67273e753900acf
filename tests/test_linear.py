"""Expressions that read what strangers send cannot take more than their length of steps."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from re import _constants as kinds
from re import _parser as parser
from typing import Any

from sketch_search import service
from sketch_search.indexer import store
from sketch_search.model import images


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

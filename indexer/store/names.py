"""Names of files as text that every database and every answer can hold, and back."""

from __future__ import annotations

import re

# A character of a name that is no Unicode: Python's sign for a byte that is not UTF-8, or half a pair of Windows.
_NO_CHARACTER = re.compile(r"(\\*)([\ud800-\udfff])")
# What could be taken for the escape of one, in a name that has it literally.
_LOOKALIKE = re.compile(r"(\\+)(ud[89a-f][0-9a-f]{2})")


def text_of_name(name: str) -> str:
    r"""A file name as text. Different names give different texts, and ``name_of_text`` gives the name back.

    A byte that is not UTF-8 is written as an escape, such as ``\udce9``. Backslashes just before an escape, or before
    what looks like one in the name, are doubled. All other names stay as they are.
    """
    text = _LOOKALIKE.sub(lambda found: found[1] * 2 + found[2], name)
    return _NO_CHARACTER.sub(lambda found: f"{found[1] * 2}\\u{ord(found[2]):04x}", text)


def name_of_text(text: str) -> str:
    """The file name that ``text_of_name`` wrote as this text."""

    def decoded(found: re.Match[str]) -> str:
        backslashes, escape = found[1], found[2]
        half = "\\" * (len(backslashes) // 2)
        return half + (chr(int(escape[1:], 16)) if len(backslashes) % 2 else escape)

    return _LOOKALIKE.sub(decoded, text)


def is_unicode(name: str) -> bool:
    """Whether all of a name is Unicode."""
    return _NO_CHARACTER.search(name) is None

"""Names of files, written for people."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text of one line, without what would move a terminal's cursor, hide or reorder text, or cannot be encoded.

    A file may have any name: one with a line break could forge a line of a report, and one with an escape sequence
    could rewrite what is above it. Such characters are written as Python's escapes, as in ``a\\nb``.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

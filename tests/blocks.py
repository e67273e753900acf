"""Blocks of a Markdown page that commands write, each between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from indexer.store.files import write_atomically

_BLOCK = re.compile(r"^<!-- begin: (?P<name>.+) -->\n(?P<text>.*?)^<!-- end: (?P=name) -->$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"^<!-- (?:begin|end): .+ -->$", re.MULTILINE)


class PageError(Exception):
    """A page without a place for a block; the message says which block is missing or marked wrongly."""


def read_blocks(page: str) -> dict[str, str]:
    """The text of every block of the page, by name, without its last line end.

    Raises PageError where a mark has no partner, or a name stands twice.
    """
    blocks = list(_BLOCK.finditer(page))
    names = [block["name"] for block in blocks]
    if len(_MARK.findall(page)) != 2 * len(blocks) or len(set(names)) != len(names):
        raise PageError(
            "each block of a page needs one <!-- begin: NAME --> and, after it, one <!-- end: NAME -->; "
            f"well marked are: {', '.join(names) or 'none'}"
        )
    return {block["name"]: block["text"].removesuffix("\n") for block in blocks}


def replace_blocks(page: str, blocks: Mapping[str, str]) -> str:
    """``page`` with these texts in the blocks of their names; everything else stays as it is.

    Raises PageError where the page has no block of one of the names.
    """
    for name in blocks.keys() - read_blocks(page).keys():
        raise PageError(f"the page has no block <!-- begin: {name} -->")

    def with_new_text(block: re.Match[str]) -> str:
        name = block["name"]
        return f"<!-- begin: {name} -->\n{blocks[name]}\n<!-- end: {name} -->" if name in blocks else block[0]

    return _BLOCK.sub(with_new_text, page)


def rewrite_page(path: Path, blocks: Mapping[str, str]) -> None:
    """Put these texts into the blocks of the page at ``path``, all or nothing. Raises PageError."""
    write_atomically(path, replace_blocks(path.read_text(encoding="utf-8"), blocks).encode())

"""Blocks of a page that commands write."""

from __future__ import annotations

import pytest

from tests.blocks import PageError, read_blocks, replace_blocks

PAGE = """# Title
<!-- begin: One -->
old
lines
<!-- end: One -->
by hand
<!-- begin: Two -->
<!-- end: Two -->
"""


def test_a_block_is_replaced_and_all_else_stays() -> None:
    page = replace_blocks(PAGE, {"One": r"new \1"})
    assert page == PAGE.replace("old\nlines", r"new \1")
    assert read_blocks(page) == {"One": r"new \1", "Two": ""}
    assert replace_blocks(page, {"One": r"new \1"}) == page


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<!-- end: One -->\n", ""),
        ("<!-- begin: One -->\n", ""),
        ("<!-- begin: One -->\n", "<!-- begin: One -->\n<!-- begin: One -->\n"),
        ("Two", "One"),
    ],
)
def test_a_mark_without_a_partner_or_a_name_that_stands_twice_is_refused(before: str, after: str) -> None:
    with pytest.raises(PageError, match="each block of a page needs"):
        replace_blocks(PAGE.replace(before, after), {})


def test_a_block_that_the_page_does_not_have_is_named() -> None:
    with pytest.raises(PageError, match="begin: Three"):
        replace_blocks(PAGE, {"Three": ""})

"""Holds the fixtures that all tests of the page have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.search import shown


@pytest.fixture(scope="package", autouse=True)
def only_copies_are_folded() -> Iterator[None]:
    """The page folds near duplicates, and to a network with random weights all pictures are much the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shown, "SAME", 0.9999)
        yield

from __future__ import annotations

import errno
from itertools import product
from pathlib import Path

import pytest

from indexer.store.files import is_unicode, name_of_text, read_below, text_of_name

PARTS = ["\\", "u", "dce9", "udce9", "\udce9", "\ud800", "é"]


def test_every_name_has_a_text_of_its_own_that_leads_back_to_it() -> None:
    names = ["".join(parts) for length in range(5) for parts in product(PARTS, repeat=length)]
    texts = {name: text_of_name(name) for name in names}
    assert len(set(texts.values())) == len(set(names))
    for name, text in texts.items():
        assert is_unicode(text)
        assert name_of_text(text) == name


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("Ännchen 001.png", r"a\b", r"a\udb", r"udce9", r"C\\D", ""):
        assert text_of_name(name) == name


def test_a_text_of_a_name_that_no_file_can_have_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told:
        read_below(tmp_path, r"\ud800.png")
    assert told.value.errno == errno.ENOENT

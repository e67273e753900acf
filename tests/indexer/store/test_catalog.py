"""Catalogs whose values are not what a build writes."""

from __future__ import annotations

from pathlib import Path

import pytest

import model
from indexer import IndexRefused, build, open_index, read_summary, remove, verify
from tests.indexer.damages import sign, sql


@pytest.mark.parametrize(
    "change",
    [
        *("photos SET root = 1", "photos SET root = 'x'", "photos SET root = -1", "photos SET path = x'ff'"),
        *("photos SET cluster = 'x'", "photos SET cluster = 9", "photos SET cluster = -1", "photos SET row = 0.5"),
        *("photos SET taken = 'x'", "photos SET taken = -1", "photos SET taken = 1 << 40", "photos SET ctime = 'x'"),
        *("photos SET size = 'x'", "photos SET mtime = 1e300", "photos SET hash = x''", "photos SET id = 1 << 50"),
        *(
            "drift SET distance = 'x'",
            "drift SET distance = 9e999",
            "drift SET photos = -1",
            "drift SET clustered = ''",
        ),
    ],
)
def test_a_catalog_with_values_out_of_place_is_refused_by_what_changes_the_index(
    change: str, gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    sql(f"UPDATE {change}" + (" WHERE id = 3" if "photos SET" in change else ""))(index_path)
    sign(index_path)
    for change_it in (lambda: build([gallery], index_path, matcher), lambda: remove(["in here"], index_path)):
        with pytest.raises(IndexRefused, match=r"photos\.sqlite is damaged .*verify --repair"):
            change_it()


def test_a_root_that_the_manifest_does_not_have_is_refused_by_all_who_look_into_the_catalog(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    sql("UPDATE photos SET root = 7, status = 'bad' WHERE id = 3")(index_path)
    sql("UPDATE photos SET root = 7 WHERE id = 4")(index_path)
    sign(index_path)
    sentence = "there is no root 7"
    assert sentence in verify(index_path)[0]
    with pytest.raises(IndexRefused, match=sentence):
        read_summary(index_path)
    with open_index(index_path, matcher) as index, pytest.raises(IndexRefused, match=sentence):
        index.photo(4)


def test_a_removal_of_a_root_that_is_not_there_is_refused(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    sql("INSERT INTO removals VALUES (5, 'x', 1)")(index_path)
    sign(index_path)
    with pytest.raises(IndexRefused, match="there is no root 5"):
        build([gallery], index_path, matcher)

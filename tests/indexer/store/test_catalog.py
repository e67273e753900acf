"""Catalogs whose values are not what a build writes."""

from __future__ import annotations

from contextlib import closing

import pytest

from indexer import IndexRefused, read_summary, remove
from indexer.store.catalog import Catalog
from tests.indexer.damages import sign, sql
from tests.indexer.galleries import Collection


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
    change: str, copied: Collection
) -> None:
    sql(f"UPDATE {change}" + (" WHERE id = 3" if "photos SET" in change else ""))(copied.index)
    sign(copied.index)
    for change_it in (lambda: copied.build(), lambda: remove(["in here"], copied.index)):
        with pytest.raises(IndexRefused, match=r"photos\.sqlite is damaged .*index build`"):
            change_it()


def test_a_root_that_the_manifest_does_not_have_is_refused_by_all_who_look_into_the_catalog(
    copied: Collection,
) -> None:
    sql("UPDATE photos SET root = 7, status = 'bad', reason = 'x' WHERE id = 3")(copied.index)
    sql("UPDATE photos SET root = 7 WHERE id = 4")(copied.index)
    sign(copied.index)
    sentence = "there is no root 7"
    with pytest.raises(IndexRefused, match=sentence):
        read_summary(copied.index)
    with copied.open() as index, pytest.raises(IndexRefused, match=sentence):
        index.photo(4)


def test_a_removal_of_a_root_that_is_not_there_is_refused(copied: Collection) -> None:
    sql("INSERT INTO removals VALUES (5, 'x', 1)")(copied.index)
    sign(copied.index)
    with pytest.raises(IndexRefused, match="there is no root 5"):
        copied.build()


ENDLESS = (
    "CREATE VIEW photos AS WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless) "
    "SELECT n AS id, 0 AS root, 'x' AS path, 'x' AS hash, 1 AS size, 1 AS mtime, 1 AS ctime, 1 AS taken, "
    "'indexed' AS status, NULL AS reason, 0 AS cluster, 's' AS segment, n AS row FROM endless"
)


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE photos RENAME TO others", ENDLESS),
        ("CREATE TABLE more (n INTEGER)",),
        ("CREATE TRIGGER more AFTER INSERT ON photos BEGIN SELECT 1; END",),
        ("DROP INDEX photos_by_row",),
    ],
)
def test_a_catalog_with_other_tables_or_views_than_a_build_makes_is_refused_before_it_is_read(
    statements: tuple[str, ...], copied: Collection
) -> None:
    for statement in statements:
        sql(statement)(copied.index)
    sign(copied.index)
    for look in (lambda: copied.open(), lambda: read_summary(copied.index)):
        with pytest.raises(IndexRefused, match=r"photos\.sqlite is no catalog"):
            look()


def test_a_query_that_goes_in_circles_is_stopped(copied: Collection) -> None:
    catalog = Catalog(copied.index / "g000001" / "photos.sqlite")
    with closing(catalog), pytest.raises(IndexRefused, match=r"is damaged .interrupted"):
        catalog._rows(
            "WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless) SELECT n FROM endless"
        )

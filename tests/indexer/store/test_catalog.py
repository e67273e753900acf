from __future__ import annotations

from datetime import date

import pytest

from indexer import IndexDamaged, PhotoFilter, UnknownPhoto, remove
from indexer.store.catalog import Catalog
from tests.indexer.damages import sign, sql
from tests.indexer.galleries import Collection

ENDLESS = (
    "CREATE VIEW photos AS WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless) "
    "SELECT n AS id, 0 AS root, 'x' AS path, 'x' AS hash, 1 AS size, 1 AS mtime, 1 AS ctime, 1 AS taken, "
    "'indexed' AS status, NULL AS reason, 0 AS cluster, 's' AS segment, n AS row FROM endless"
)


def test_a_query_of_a_view_without_end_is_stopped(copied: Collection) -> None:
    sql("ALTER TABLE photos RENAME TO others")(copied.index)
    sql(ENDLESS)(copied.index)
    sign(copied.index)
    for work in (copied.update, lambda: remove([], copied.index, ids=[1])):
        with pytest.raises(IndexDamaged, match=r"is damaged .interrupted"):
            work()
    with copied.open() as index:
        for look in (lambda: index.photo(1), lambda: index.passing(PhotoFilter())):
            with pytest.raises(IndexDamaged, match=r"is damaged .interrupted"):
                look()


def test_a_page_of_photos_is_one_query(copied: Collection) -> None:
    with copied.open() as index:
        asked = list[str]()
        index._catalog._database.set_trace_callback(asked.append)
        found = index.photos([5, 3, 12])
        assert len(asked) == 1
        assert [entry.id for entry in found] == [5, 3, 12]
        assert found[1] == index.photo(3)
        assert index.photos([]) == ()
        with pytest.raises(UnknownPhoto, match="no photo has the id 99"):
            index.photos([5, 99])


def test_filters_and_look_ups_use_an_index(copied: Collection) -> None:
    plans = list[str]()
    with Catalog(copied.index / "g000001" / "photos.sqlite") as catalog:
        wanted = [
            PhotoFilter(after=date(2020, 1, 1), before=date(2020, 2, 1)),
            PhotoFilter(after=date(2020, 1, 1)),
            PhotoFilter(folders=("in here",)),
        ]
        asked = list[str]()
        catalog._database.set_trace_callback(asked.append)
        for each in wanted:
            catalog.rows_of(each, ["photos"])
        catalog.at(0, "in here/x.png")
        catalog.sharing([1, 2])
        catalog._database.set_trace_callback(None)
        for query in asked:
            plans += [detail for *_, detail in catalog._database.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert len(asked) == 5
    assert not [plan for plan in plans if plan.startswith("SCAN") and "json_each" not in plan]

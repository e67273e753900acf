from datetime import date

import pytest

from indexer import IndexDamaged, PhotoFilter, read_summary, remove
from indexer.store.catalog import Catalog
from tests.indexer.damages import make_endless, sign, sql
from tests.indexer.galleries import Collection

# ``instr`` compares 4 million places of a text with 2 million characters each, within one step of the query.
SLOW = "instr(replace(hex(zeroblob(4000000)), '00', 'a'), replace(hex(zeroblob(2000000)), '00', 'a') || 'b')"
VIEW = f"""CREATE VIEW photos AS SELECT id + {SLOW} AS id, root, path, hash, size, mtime, ctime, taken, status, reason,
           cluster, segment, row FROM others"""


def test_what_a_catalog_would_compute_by_itself_is_refused(copied: Collection) -> None:
    sql("ALTER TABLE photos RENAME TO others")(copied.index)
    sql(VIEW)(copied.index)
    sign(copied.index)
    for work in (copied.open, copied.update, lambda: remove([], copied.index, ids=[1])):
        with pytest.raises(IndexDamaged, match="it has not the tables of a catalog"):
            work()


def test_a_query_of_a_table_without_end_is_stopped(copied: Collection) -> None:
    make_endless(copied.index / "g000001" / "photos.sqlite", "photos")
    sign(copied.index)
    with copied.open() as index:
        for look in (lambda: read_summary(copied.index), lambda: index.passing(PhotoFilter())):
            with pytest.raises(IndexDamaged, match=r"is damaged .interrupted"):
                look()


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

import pytest

from indexer import IndexDamaged, PhotoFilter, read_summary, remove
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

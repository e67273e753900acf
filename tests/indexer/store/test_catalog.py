import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date

import pytest

from sketch_search.indexer.store.catalog import Catalog, PhotoFilter, Removals, write_catalog
from sketch_search.model.limits import at_pauses

NAMES = ["photos"]
FILES = 40_000
FOLDERS = tuple(f"folder {number}" for number in range(60))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """FILES photos in 100 folders, of which each second has no day of its own."""

    def entry(number: int) -> tuple[object, ...]:
        name, changed = f"folder {number % 100}/{number}.jpg", (10**9 + number) * 10**9
        taken = None if number % 2 else 730_000 + number % 5000
        return (number + 1, 0, name, f"{number:064x}", 1000, changed, 0, taken, "indexed", None, 0, "segment", number)

    path = tmp_path_factory.mktemp("catalog") / "photos.sqlite"
    write_catalog(path, map(entry, range(FILES)), Removals())
    with Catalog(path) as opened:
        yield opened


@contextmanager
def pausing(action: Callable[[], None]) -> Iterator[None]:
    token = at_pauses.set(action)
    try:
        yield
    finally:
        at_pauses.reset(token)


QUERIES: dict[str, Callable[[Catalog], list[object]]] = {
    "passing": lambda catalog: [*catalog.segment_rows_of(PhotoFilter(after=date(1990, 1, 1)), NAMES)],
    "newest": lambda catalog: [*catalog.newest(PhotoFilter(), NAMES)],
    "in folders": lambda catalog: [*catalog.without_photos([".", *FOLDERS], NAMES)],
}


@pytest.mark.parametrize("name", [*QUERIES])
def test_a_filter_gives_way_to_other_filters_and_ends_where_it_is_stopped(name: str, catalog: Catalog) -> None:
    whole, pauses = QUERIES[name](catalog), list[list[object]]()

    def read_another() -> None:
        pauses.append([])
        if len(pauses) == 1:
            pauses[0] += QUERIES["newest"](catalog)

    def stop() -> None:
        raise InterruptedError

    with pausing(read_another):
        assert QUERIES[name](catalog) == whole
    assert len(pauses[0]) == FILES
    pauses = [[]]
    with pausing(read_another):
        QUERIES[name](catalog)
    assert len(pauses) > 8
    with pausing(stop), pytest.raises(InterruptedError):
        QUERIES[name](catalog)
    assert QUERIES[name](catalog) == whole


def test_many_folders_without_photos_of_a_day_cost_little(catalog: Catalog) -> None:
    def seconds(query: Callable[[], object]) -> float:
        begun = time.process_time()
        query()
        return time.process_time() - begun

    coming = PhotoFilter(FOLDERS, after=date(2200, 1, 1))
    assert not [*catalog.segment_rows_of(coming, NAMES)]
    assert catalog.without_photos([*FOLDERS, "folder", "photos/folder 7", "folder 7/."], NAMES) == (
        "folder",
        "photos/folder 7",
    )
    once = seconds(lambda: [*catalog.segment_rows_of(PhotoFilter(), NAMES)])
    assert (
        seconds(lambda: [*catalog.segment_rows_of(coming, NAMES), *catalog.without_photos(FOLDERS, NAMES)]) < 3 * once
    )

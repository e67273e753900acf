import gc
from itertools import count
from typing import Any

import pytest

from sketch_search.indexer.building.folder_listing import FolderListing
from sketch_search.indexer.building.progress import Progress
from sketch_search.indexer.store.catalog import GalleryFile
from tests.indexer.galleries import Collection

FILES, AT_ONCE = 120, 10
ONLY_HERE = ".counted.jpg"  # other tests leave records that may be freed at any time: they are not counted


def test_a_build_keeps_no_record_of_all_files(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    found, listed, is_photo = list[int](), count(), FolderListing._is_photo

    def look() -> None:
        gc.collect()
        kept = (one for one in gc.get_objects() if isinstance(one, GalleryFile))
        found.append(sum(record.path.endswith(ONLY_HERE) for record in kept))

    def listing(*arguments: Any) -> bool:
        if next(listed) % AT_ONCE == 0:
            look()
        return is_photo(*arguments)

    class Looking(Progress):
        def advance(self, done: int = 1, bad: int = 0, *, known: int = 0) -> None:
            look()

    monkeypatch.setattr("sketch_search.indexer.building.database._AT_ONCE", AT_ONCE)
    monkeypatch.setattr(FolderListing, "_is_photo", listing)
    # What is there before is not looked through again at each file.
    gc.collect()
    gc.freeze()
    try:
        for number in range(FILES):
            (collection.photos / f"{number}{ONLY_HERE}").write_bytes(b"x")
        assert len(collection.build(batch=AT_ONCE, progress=Looking()).bad) == FILES
    finally:
        gc.unfreeze()
    assert len(found) > FILES / AT_ONCE
    # Those that were listed, those that are being read, and their new records.
    assert 0 < max(found) <= 5 * AT_ONCE

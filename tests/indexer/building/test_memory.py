import gc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import model
from indexer.building.builds import Floats, Numbers, Written, decide, run_decided
from indexer.building.plan import Plan
from indexer.building.progress import Progress
from indexer.building.request import Request, StartingPoint
from indexer.building.staging import Journal
from indexer.building.writer import Contents
from indexer.embedding import WantedEmbedder
from indexer.store.catalog import GalleryFile
from indexer.store.generation import Origin
from indexer.store.rows import Refs, RowArrays

FILES, AT_ONCE = 500, 20
ONLY_HERE = ".counted.jpg"  # other tests leave records that may be freed at any time: they are not counted


class Unread:
    """A site that stages a row for each file without reading it, and counts the records of files that there are."""

    workers = 1

    def __init__(self, folder: Path) -> None:
        self.path, self.plan, self.most = folder / "index", Plan(folder / "plan.sqlite"), 0
        self._journal = Journal(folder / "journal")

    def take_read(self) -> None:
        self._count()
        self.plan.take_read("journal", self._journal)

    def encode(self, files: Iterator[GalleryFile]) -> int:
        while part := list(islice(files, AT_ONCE)):
            contents = [f"{file.path:0>64}" for file in part]
            records = [replace(file, content_hash=content) for file, content in zip(part, contents, strict=True)]
            self._count()
            vectors = np.random.default_rng(0).normal(size=(len(part), 4)).astype(np.float16)
            self._journal.append(records, contents, RowArrays({"vectors": vectors}))
        return len(self._journal)

    def sources(self, refs: Refs) -> Mapping[str, RowArrays]:
        arrays = self._journal.arrays()
        assert arrays is not None
        return {"journal": arrays}

    def nearest(self, refs: Refs, centroids: Floats) -> Numbers:
        self._count()
        return np.arange(len(refs)) % len(centroids)

    def write(self, contents: Contents | None) -> Written:
        self._count()
        assert contents is not None
        assert len(contents.photos) == FILES
        return Written("g000001", FILES, FILES, 1)

    def _count(self) -> None:
        gc.collect()
        kept = (one for one in gc.get_objects() if isinstance(one, GalleryFile))
        self.most = max(self.most, sum(record.path.endswith(ONLY_HERE) for record in kept))


def test_a_build_never_has_the_records_of_all_files_in_memory(
    tmp_path: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.building.plan._AT_ONCE", AT_ONCE)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(FILES):
        (photos / f"{number}{ONLY_HERE}").write_bytes(b"x")
    embedder = WantedEmbedder("ret", download=False).find("cpu")
    site = Unread(tmp_path)
    request = Request(folders=(photos,))
    decision = decide(request, StartingPoint(None), Origin.of(matcher), embedder, site.path)
    assert run_decided(decision, site, Progress()).files == FILES
    # Those that were listed, those that are being encoded, and their new records.
    assert 0 < site.most <= 3 * AT_ONCE + 1
    site.plan.close()

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

import model
from indexer.building.builds import Floats, Numbers, Staged, Written, decide, run_decided
from indexer.building.progress import Progress
from indexer.building.request import Request, StartingPoint
from indexer.building.staging import Journal
from indexer.building.writer import Contents
from indexer.embedding import WantedEmbedder
from indexer.store.catalog import GalleryFile
from indexer.store.generation import Origin
from indexer.store.rows import RowArrays, SegmentRow

FILES = 500
ONLY_HERE = ".counted.jpg"  # other tests leave records that may be freed at any time: they are not counted


class Unread:
    """A site that stages a row for each file without reading it, and counts records of files once it is to write."""

    workers = 1

    def __init__(self, folder: Path) -> None:
        self.path = folder / "index"
        self.records = 0
        self._journal = Journal(folder / "journal")

    def staged(self) -> Staged:
        rows = {content: SegmentRow("journal", row) for content, row in self._journal.rows().items()}
        return self._journal.records(), rows

    def encode(self, files: Iterator[GalleryFile]) -> int:
        while part := list(islice(files, 100)):
            contents = [f"{file.path:0>64}" for file in part]
            records = [replace(file, content_hash=content) for file, content in zip(part, contents, strict=True)]
            self._journal.append(records, contents, RowArrays({"vectors": torch.randn(len(part), 4).numpy()}))
        return len(self._journal)

    def sources(self, refs: Iterable[SegmentRow]) -> Mapping[str, RowArrays]:
        arrays = self._journal.arrays()
        assert arrays is not None
        return {"journal": arrays}

    def nearest(self, refs: Sequence[SegmentRow], centroids: Floats) -> Numbers:
        return torch.arange(len(refs)).numpy() % len(centroids)

    def write(self, contents: Contents | None) -> Written:
        gc.collect()
        kept = (one for one in gc.get_objects() if isinstance(one, GalleryFile))
        self.records = sum(record.path.endswith(ONLY_HERE) for record in kept)
        return Written("g000001", FILES, FILES, 1, None)


def test_a_build_that_writes_keeps_one_record_of_each_file(tmp_path: Path, matcher: model.Matcher) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(FILES):
        (photos / f"{number}{ONLY_HERE}").touch()
    embedder = WantedEmbedder("ret", download=False).find("cpu")
    (tmp_path / "journal").mkdir()
    site = Unread(tmp_path)
    request = Request(folders=(photos,))
    decision = decide(request, StartingPoint(None), Origin.of(matcher), embedder, site.path)
    assert run_decided(decision, site, Progress()).files == FILES
    assert site.records == FILES
    assert not hasattr(GalleryFile(0, "", None), "__dict__")

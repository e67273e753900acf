"""What a query costs as the gallery grows; `make bench`.

Only time is measured. So a larger gallery just repeats the rows of one drawn gallery, from memory, in clusters of equal
size. The encoding of the sketch is left out.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import model
from indexer import Index, build, open_index
from indexer.samples import SKETCHED, draw_sketch
from model import Tokens
from model.network.layers.cross import Side
from service.schemas import SearchQuery
from service.search.gallery.scorer import GalleryScorer
from service.search.searcher import Searcher
from tests.benchmarks.command import Command, by_matcher, peak_said
from tests.benchmarks.galleries import draw_gallery
from tests.benchmarks.results import Row

MIB = 1 << 20
SIZES = (1000, 2000, 4000, 8000, 11700, 16000, 32000, 64000)
EXHAUSTIVE = "exhaustive"
WAYS: dict[str, dict[str, Any]] = {
    EXHAUSTIVE: {"nprobe": "all"},
    "clusters": {"select": "clusters"},
    "ret": {"select": "ret"},
    "method ret": {"method": "ret"},
}
# Above so many photos the exhaustive search is not measured: its time is a straight line.
EXHAUSTIVE_UP_TO = 4000
DRAWN = 200
REPEATS = 5


class RepeatedIndex:
    """An index of ``count`` photos that repeats the photos of ``index``, in about sqrt(count) clusters.

    It has the parts of an index that a search reads. The centroid of a cluster is one of its photos.
    """

    def __init__(self, index: Index, count: int) -> None:
        self.generation, self.embedder, self.inverted = index.generation, index.embedder, None
        ret = index.all_ret()
        self._tokens = index.photo_tokens(np.arange(len(ret)))
        self.ids, self._ret = np.arange(count), ret[torch.arange(count) % len(ret)]
        self.photo = lambda photo: index.photo(int(index.ids[photo % len(index.ids)]))
        clusters = round(math.sqrt(count))
        self.cluster_sizes = np.diff(np.linspace(0, count, clusters + 1).astype(np.int64))
        lasts = (self.cluster_sizes.cumsum() - 1) % len(ret)
        self.centroids, self.centroid_ret = self._tokens[torch.from_numpy(lasts)], ret[torch.from_numpy(lasts)]

    def all_ret(self) -> torch.Tensor:
        """As in ``Index``."""
        return self._ret

    def photo_tokens(self, rows: NDArray[np.int64]) -> Tokens:
        """As in ``Index``."""
        return self._tokens[torch.from_numpy(rows % len(self._tokens))]


def measure(index: Index, matcher: model.Matcher, sizes: Sequence[int], sketches: Sequence[Image.Image]) -> list[Row]:
    """A row for each size: the median milliseconds of every way, which take turns, and the space that so many take.

    The disk holds the rows and the centroids. In memory is what every search needs; tokens are left out, for the system
    keeps those that were read as long as nothing else needs the memory.
    """
    rows: list[Row] = []
    each = sum(file.size for segment in index.manifest.segments for file in segment.files) / index.photo_count
    for size in sizes:
        larger = RepeatedIndex(index, size)
        searcher = Searcher(cast(Index, larger), matcher)
        times: dict[str, list[float]] = {way: [] for way in WAYS if way != EXHAUSTIVE or size <= EXHAUSTIVE_UP_TO}
        for sketch in sketches:
            for way, taken in times.items():
                timings = searcher.search(sketch, SearchQuery(**WAYS[way])).timings_ms
                taken.append(timings.clusters + timings.photos + timings.diffusion)
        centroids = sum(t.nbytes for t in (larger.centroids.features, larger.centroids.positions, larger.centroid_ret))
        row: Row = {"photos": size, "clusters": len(larger.cluster_sizes)}
        row |= {f"{way} (ms)": statistics.median(times[way]) if way in times else None for way in WAYS}
        room = {"index on disk (MiB)": size * each + centroids, "kept in memory (MiB)": held(searcher.scorer)}
        rows.append(row | {name: taken / MIB for name, taken in room.items()})
    return rows


def held(scorer: GalleryScorer) -> int:
    """Bytes of a scorer's arrays, but for the photos' tokens, which a GPU may have, too."""
    values = [value for name, value in vars(scorer).items() if name != "_resident"]
    parts = [
        part for value in values for part in (vars(value).values() if isinstance(value, Tokens | Side) else [value])
    ]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray | torch.Tensor))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/growth.json."""
    command = Command("growth", __doc__, device=True)
    options = command.begin(arguments)
    matcher = command.load()
    sketches = [draw_sketch(name) for name in SKETCHED][: 1 if options.quick else REPEATS]
    with tempfile.TemporaryDirectory() as folder:
        gallery, place = Path(folder) / "gallery", Path(folder) / "index"
        draw_gallery(gallery, DRAWN // 10 if options.quick else DRAWN)
        build([gallery], place, matcher, embedder="ret")
        with open_index(place, matcher) as index:
            rows = measure(index, matcher, SIZES[:2] if options.quick else SIZES, sketches)
    command.save(command.result("Growth", by_matcher(matcher), rows=rows, said=peak_said(matcher.device).strip()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

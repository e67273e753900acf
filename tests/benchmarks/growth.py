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
from pydantic import BaseModel

import model
from indexer import Index, build, open_index
from indexer.samples import SKETCHED, draw_sketch
from model import Tokens
from model.network.layers.cross import Side
from service.schemas import SearchQuery
from service.search.gallery.scorer import GalleryScorer
from service.search.searcher import Searcher
from tests.benchmarks.circumstances import BenchmarkResult, Call, circumstances, peak_mib
from tests.benchmarks.command import Command
from tests.benchmarks.galleries import draw_gallery

MIB = 1 << 20
SIZES = (1000, 2000, 4000, 8000, 11700, 16000, 32000, 64000)
WAYS: dict[str, dict[str, Any]] = {
    "exhaustive": {"nprobe": "all"},
    "clusters": {"select": "clusters"},
    "ret": {"select": "ret"},
    "method ret": {"method": "ret"},
}
# Above so many photos the exhaustive search is not measured: its time is a straight line.
EXHAUSTIVE_UP_TO = 4000
DRAWN = 200
REPEATS = 5


class Point(BaseModel):
    """One way on a gallery of one size.

    Attributes:
        pairs: sketch-centroid and sketch-photo pairs that were scored.
        milliseconds: a query, the median.
    """

    way: str
    photos: int
    clusters: int
    pairs: int
    milliseconds: float


class Room(BaseModel):
    """The space that so many photos take.

    Attributes:
        disk_mib: on disk, for their rows and the centroids of their clusters.
        memory_mib: in memory, for what every search needs. Tokens are left out: the system keeps those that were read
            in memory as long as nothing else needs it.
    """

    photos: int
    disk_mib: float
    memory_mib: float


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


class Result(BenchmarkResult):
    """One run, as far as it is."""

    points: list[Point]
    room: list[Room]


def measure(
    index: Index,
    matcher: model.Matcher,
    sizes: Sequence[int],
    sketches: Sequence[Image.Image],
    document: Path,
    call: Call,
) -> Result:
    """Measure every way on a gallery of every size; the ways take turns. Writes ``document`` after each size."""
    result = Result(circumstances=circumstances(matcher, call), finished=False, points=[], room=[])
    each = sum(file.size for segment in index.manifest.segments for file in segment.files) / index.photo_count
    for size in sizes:
        larger = RepeatedIndex(index, size)
        searcher = Searcher(cast(Index, larger), matcher)
        ways = [way for way in WAYS if way != "exhaustive" or size <= EXHAUSTIVE_UP_TO]
        times: dict[str, list[float]] = {way: [] for way in ways}
        pairs: dict[str, int] = {}
        for sketch in sketches:
            for way in ways:
                found = searcher.search(sketch, SearchQuery(**WAYS[way]))
                pairs[way] = found.pairs_scored
                times[way].append(found.timings.clusters + found.timings.photos + found.timings.diffusion)
        clusters = len(larger.cluster_sizes)
        centroids = sum(t.nbytes for t in (larger.centroids.features, larger.centroids.positions, larger.centroid_ret))
        room = Room(photos=size, disk_mib=(size * each + centroids) / MIB, memory_mib=held(searcher.scorer) / MIB)
        result.room.append(room)
        result.points += [
            Point(way=way, photos=size, clusters=clusters, pairs=pairs[way], milliseconds=statistics.median(times[way]))
            for way in ways
        ]
        result.finished, result.peak_mib = size == sizes[-1], peak_mib(matcher.device)
        result.save(document)
    return result


def held(scorer: GalleryScorer) -> int:
    """Bytes of a scorer's arrays, but for the photos' tokens, which a GPU may have, too."""
    values = [value for name, value in vars(scorer).items() if name != "_resident"]
    parts = [
        part for value in values for part in (vars(value).values() if isinstance(value, Tokens | Side) else [value])
    ]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray | torch.Tensor))


def table(result: Result) -> str:
    """The result as a table for the terminal."""
    lines = [f"{'way':<12}{'photos':>8}{'clusters':>10}{'pairs':>8}{'ms':>9}"]
    lines += [f"{p.way:<12}{p.photos:>8}{p.clusters:>10}{p.pairs:>8}{p.milliseconds:>9.1f}" for p in result.points]
    lines.append(f"{'photos':>20}{'MiB on disk':>14}{'in memory':>12}")
    lines += [f"{room.photos:>20}{room.disk_mib:>14.1f}{room.memory_mib:>12.1f}" for room in result.room]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/growth.json."""
    command = Command("growth", __doc__, device=True)
    options, call = command.begin(arguments)
    matcher = command.load(options)
    document = options.output / "growth.json"
    sketches = [draw_sketch(name) for name in SKETCHED][: 1 if options.quick else REPEATS]
    with tempfile.TemporaryDirectory() as folder:
        gallery, place = Path(folder) / "gallery", Path(folder) / "index"
        draw_gallery(gallery, DRAWN // 10 if options.quick else DRAWN)
        build([gallery], place, matcher, embedder="ret")
        with open_index(place, matcher) as index:
            result = measure(index, matcher, SIZES[:2] if options.quick else SIZES, sketches, document, call)
    print(f"{table(result)}\n{document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

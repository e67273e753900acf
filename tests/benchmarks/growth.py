"""What a query costs as the gallery grows; `make bench`.

Only time is measured, so the rows of one drawn gallery are taken again and again, from memory, in clusters of equal
size. The sketch's encoding is left out.
"""

from __future__ import annotations

import argparse
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
from model.checkpoint import default_checkpoint
from service.search import Searcher
from service.settings import Settings
from tests.benchmarks.circumstances import Circumstances, circumstances
from tests.benchmarks.galleries import draw_gallery

SIZES = (1000, 2000, 4000, 8000, 16000, 32000, 64000)
WAYS: dict[str, dict[str, Any]] = {
    "exhaustive": {"nprobe": "all"},
    "clusters": {"select": "clusters"},
    "ret": {"select": "ret"},
    "method ret": {"method": "ret"},
}
# Beyond so many photos the exhaustive search is a line that needs no further point.
EXHAUSTIVE_UP_TO = 4000
DRAWN = 200
REPEATS = 5


class Point(BaseModel):
    """One way on one gallery: sketch-centroid and sketch-photo pairs, and the median of milliseconds a query."""

    way: str
    photos: int
    clusters: int
    pairs: int
    milliseconds: float


class RepeatedIndex:
    """An index with ``count`` photos that are those of ``index`` again and again, in about sqrt(count) clusters.

    Has what a search reads; a cluster's centroid is one of its photos.
    """

    def __init__(self, index: Index, count: int) -> None:
        self.generation, self.manifest = index.generation, index.manifest
        ret = index.all_ret()
        self._tokens = index.photo_tokens(np.arange(len(ret)))
        self.ids, self._ret = np.arange(count), ret[torch.arange(count) % len(ret)]
        self.photo = lambda photo: index.photo(int(index.ids[photo % len(index.ids)]))
        clusters = round(math.sqrt(count))
        self.cluster_sizes = np.diff(np.linspace(0, count, clusters + 1).astype(np.int64))
        firsts = (self.cluster_sizes.cumsum() - 1) % len(ret)
        self.centroids, self.centroid_ret = self._tokens[torch.from_numpy(firsts)], ret[torch.from_numpy(firsts)]

    def all_ret(self) -> torch.Tensor:
        """As an index."""
        return self._ret

    def photo_tokens(self, places: NDArray[np.int64]) -> model.Tokens:
        """As an index."""
        return self._tokens[torch.from_numpy(places % len(self._tokens))]


class Result(BaseModel):
    """One run, or what there is of it."""

    circumstances: Circumstances
    points: list[Point]


def measure(
    index: Index, matcher: model.Matcher, sizes: Sequence[int], sketches: Sequence[Image.Image], document: Path
) -> list[Point]:
    """Every way on a gallery of every size, the ways in turns; written to ``document`` after each size."""
    points: list[Point] = []
    for size in sizes:
        larger = RepeatedIndex(index, size)
        searcher = Searcher(cast(Index, larger), matcher)
        ways = [way for way in WAYS if way != "exhaustive" or size <= EXHAUSTIVE_UP_TO]
        times: dict[str, list[float]] = {way: [] for way in ways}
        pairs: dict[str, int] = {}
        for sketch in sketches:
            for way in ways:
                found = searcher.search(sketch, **WAYS[way])
                pairs[way] = found.pairs_scored
                times[way].append(found.timings.clusters + found.timings.photos + found.timings.diffusion)
        clusters = len(larger.cluster_sizes)
        points += [
            Point(way=way, photos=size, clusters=clusters, pairs=pairs[way], milliseconds=statistics.median(times[way]))
            for way in ways
        ]
        result = Result(circumstances=circumstances(matcher), points=points)
        document.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return points


def draw(points: Sequence[Point], picture: Path) -> bool:
    """Milliseconds over photos, both logarithmic, as SVG; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for way in WAYS:
        of_way = [(point.photos, point.milliseconds) for point in points if point.way == way]
        axes.plot(*zip(*of_way, strict=True), marker="o", label=way)
    first = next(point for point in points if point.way == "clusters")
    sizes = sorted({point.photos for point in points})
    root = [first.milliseconds * math.sqrt(size / first.photos) for size in sizes]
    axes.plot(sizes, root, color="grey", linestyle=":", label="square root")
    axes.set(title="a query, without its encoding", xlabel="photos", ylabel="ms", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture)
    return True


def table(points: Sequence[Point]) -> str:
    """For people."""
    lines = [f"{'way':<12}{'photos':>8}{'clusters':>10}{'pairs':>8}{'ms':>9}"]
    lines += [f"{p.way:<12}{p.photos:>8}{p.clusters:>10}{p.pairs:>8}{p.milliseconds:>9.1f}" for p in points]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/growth.json and growth.svg; 2 with a sentence where there is no checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (SBIR_WEIGHTS, else the embedded one)")
    parser.add_argument("--quick", action="store_true", help="small galleries, few repeats")
    options = parser.parse_args(arguments)
    try:
        matcher = model.load(default_checkpoint(options.weights or Settings().weights))
    except model.ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    document = options.output / "growth.json"
    sketches = [draw_sketch(name) for name in SKETCHED][: 1 if options.quick else REPEATS]
    with tempfile.TemporaryDirectory() as folder:
        gallery, place = Path(folder) / "gallery", Path(folder) / "index"
        draw_gallery(gallery, DRAWN // 10 if options.quick else DRAWN)
        build([gallery], place, matcher, embedder="ret")
        with open_index(place, matcher) as index:
            points = measure(index, matcher, SIZES[:2] if options.quick else SIZES, sketches, document)
    print(table(points))
    drawn = draw(points, options.output / "growth.svg")
    print(document, *([options.output / "growth.svg"] if drawn else []), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

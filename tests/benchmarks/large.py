"""What a search of a large gallery takes, and what it misses; `make bench`.

The galleries are made of the rows of an index of real photos (``large_index``), the queries are real sketches. Each is
opened and searched in a process of its own, which says how much memory it has then.
"""

import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from sketch_search.indexer import open_index
from sketch_search.indexer.samples import SKETCHED, draw_sketch
from sketch_search.model import Matcher, Tokens, load
from sketch_search.model.images import open_image
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.model.search import best_first
from sketch_search.service.schemas.query import SearchQuery
from sketch_search.training.corpus import DATA_VARIABLE, data_folder, read_data
from tests.benchmarks.command import Command, by_matcher, memory
from tests.benchmarks.galleries import drawn_index, prepare
from tests.benchmarks.large_index import write_large_shards
from tests.benchmarks.results import Row
from tests.searching import Searcher

# The exact best photos by [Ret], of which the opened clusters should hold as many as they can.
FIRST = 96
SIZES = (1000, 20_000, 100_000, 1_000_000)
QUICK_SIZES = (200, 400)
QUERIES, QUICK_QUERIES = 50, 2
DRAWN, DRAWN_QUICKLY = 400, 40
MIB = 1 << 20
# Stages of a search as the service times them, by their columns.
STAGES = {
    "a query": ("total",),
    "encode": ("encode",),
    "all but encode": ("clusters", "photos", "diffusion"),
    "choose": ("clusters",),
    "score": ("photos",),
    "diffuse": ("diffusion",),
}
FILTER = SearchQuery.model_validate({"folder": ("007", "011"), "after": "1972-01-01"})
FILTERED = 10
_BLOCK = 1 << 14


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("large", __doc__, device=True)
    command.add_argument("--sizes", type=int, nargs="+", metavar="N", help="photos of each gallery")
    command.add_argument("--source", type=Path, metavar="INDEX", help="the index that galleries are made of")
    options = command.begin(arguments)
    matcher = command.load()
    source = source_of(options, matcher)
    queries = sketches(QUICK_QUERIES if options.quick else QUERIES, options.output)
    with open_index(source, matcher) as index:
        said = f"{len(queries)} sketches; galleries made of {index.photo_count:,} photos in clusters by [Ret]."
    result = command.result("Large galleries", by_matcher(matcher), said=said)
    for size in options.sizes or (QUICK_SIZES if options.quick else SIZES):
        place = options.output / f"large-{size}-{matcher.checkpoint_sha256[:8]}"
        write_large_shards([place], source, size)
        result.rows.append(in_own_process(place, command.weights(), queries, options.device))
        shutil.rmtree(place)
    command.save(result)
    return 0


def source_of(options: Namespace, matcher: Matcher) -> Path:
    if options.source is not None:
        return Path(options.source)
    if os.environ.get(DATA_VARIABLE) and not options.quick:
        place: Path = options.output / f"all_photos-{matcher.checkpoint_sha256[:8]}"
        prepare(place, matcher, None)
        return place
    place = options.output / f"drawn-large-{matcher.checkpoint_sha256[:8]}"
    return drawn_index(place, DRAWN_QUICKLY if options.quick else DRAWN, matcher)


def sketches(count: int, folder: Path) -> list[Path]:
    """The queries: real sketches of the classes in turn where there are any, else drawn ones, as files in a folder."""
    if os.environ.get(DATA_VARIABLE):
        found = read_data(data_folder()).sketches
        return [picture.path for picture in found[:: max(1, len(found) // count)][:count]]
    files = [folder / f"sketch-{name}.png" for name in SKETCHED[:count]]
    for name, file in zip(SKETCHED, files, strict=False):
        draw_sketch(name).save(file)
    return files


def in_own_process(place: Path, weights: Path, sketches: Sequence[Path], device: str) -> Row:
    """Runs ``measure`` in a new process, whose memory holds nothing of what this one has done, and returns its row."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, place, weights, sketches, device).result()


def measure(place: Path, weights: Path, sketches: Sequence[Path], device: str = "cpu") -> Row:
    """Open and search one gallery.

    The row has medians of a query and its stages, and the 95th percentile of a query. "Own" memory leaves out pages of
    files, which the system may drop.
    """
    matcher = load(weights, device, variants=MAX_VARIANTS)
    drawn = [open_image(path) for path in sketches]
    matcher.encode(matcher.prepare(drawn[0], "sketch")[None], "sketch")
    start = time.perf_counter()
    with open_index(place, matcher) as index:
        searcher = Searcher(index, matcher)
        opened_in = time.perf_counter() - start
        searcher.search(drawn[0], SearchQuery())
        found = [searcher.search(sketch, SearchQuery()) for sketch in drawn]
        searched = memory()
        matcher.kept.clear()
        filtered = [searcher.search(sketch, FILTER).timings_ms.total for sketch in drawn[:FILTERED]]
        times = {
            name: [sum(getattr(one.timings_ms, stage) for stage in stages) for one in found]
            for name, stages in STAGES.items()
        }
        files = [*index.manifest.files, *(file for segment in index.manifest.segments for file in segment.files)]
        return {
            "photos": index.photo_count,
            "clusters": index.cluster_count,
            **{f"{name} (ms)": float(np.median(values)) for name, values in times.items()},
            "p95 (ms)": float(np.quantile(times["a query"], 0.95)),
            "with a filter (ms)": float(np.median(filtered)),
            f"found of the exact first {FIRST}": share_found(searcher, drawn),
            "open the index (s)": opened_in,
            "whole process (MiB)": searched["VmRSS"],
            "own (MiB)": searched["RssAnon"],
            "index on disk (MiB)": sum(file.size for file in files) / MIB,
        }


def share_found(searcher: Searcher, drawn: Sequence[Image.Image]) -> float:
    """Returns the share of the exact best FIRST photos by [Ret] that a search chooses, the mean over the queries."""
    matcher, index = searcher.matcher, searcher.index
    chosen = [{hit.id for hit in searcher.search(one, SearchQuery(k=FIRST, method="ret")).results} for one in drawn]
    # With the summary of each sketch, whose guesses lead a search, too.
    sketches = Tokens.cat([matcher.encode(matcher.prepare(one, "sketch")[None], "sketch") for one in drawn])
    scores = np.empty((len(drawn), index.photo_count), np.float32)
    for start in range(0, index.photo_count, _BLOCK):
        places = np.arange(start, min(start + _BLOCK, index.photo_count))
        photos = Tokens.of_ret(index.vectors.of(places))
        scores[:, places] = matcher.scores(sketches.without_patches, photos, "ret")
    exact = [index.ids[best_first(index.ids, of_one, FIRST)] for of_one in scores]
    return float(np.mean([np.isin(best, list(ids)).mean() for best, ids in zip(exact, chosen, strict=True)]))


if __name__ == "__main__":
    sys.exit(main())

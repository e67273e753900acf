"""Ways to choose the photos that are scored, compared with scoring all of them; `make bench`.

The gallery is all photos of SKETCH_SEARCH_DATA, or else drawn ones. Drawn photos are no harder than the sample gallery:
the ratios then say what a way saves, and little about the network. Every query goes through all ways
before the next one.

What a search does without options is chosen with the sketches of validation classes alone (--split val): how many
clusters and photos, and whether clusters are found by vector or by pairs.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from sketch_search import model
from sketch_search.indexer import Index, open_index
from sketch_search.model.search.stages import RERANK
from sketch_search.service.schemas.query import TunedQuery
from sketch_search.service.settings import Settings
from sketch_search.training.evaluation.figures import bootstrap
from tests.benchmarks.command import Command, by_matcher
from tests.benchmarks.galleries import PER_CLASS, Query, prepare
from tests.benchmarks.results import Row
from tests.searching import Searcher

K = 100
TOP = 20
EXHAUSTIVE = "exhaustive"
# Ways that rank by relation scores, with prior and guesses, and without diffusion.
PLAIN = "plain, "
_plain = {"method": "rn"}
# The quality of a search without options.
DEFAULT = "good"
# Cells that are opened; the same by their mean vectors alone is a searcher's default, and by pairs an option.
BY_VECTOR = {"good, 16 clusters by vector": 16}
WAYS: dict[str, dict[str, Any]] = {
    EXHAUSTIVE: {"quality": "best"},
    DEFAULT: {},
    "fast": {"quality": "fast"},
    "good, rerank 32": {"rerank": 32},
    **{way: {} for way in BY_VECTOR},
    "good, 16 clusters by pairs": {"nprobe": 16, "rerank": RERANK},
    **{f"{n} clusters by pairs, all of their photos": {"nprobe": n} for n in (4, 16)},
    PLAIN + EXHAUSTIVE: {"quality": "best", **_plain},
    PLAIN + DEFAULT: _plain,
    **{f"{PLAIN}{n} clusters by pairs, all of their photos": {"nprobe": n, **_plain} for n in (4, 16)},
}
DRAWN_QUICKLY = 150
QUICK_QUERIES = 4


@dataclass(frozen=True)
class Found:
    """Holds what one way found for one query. The time leaves out the encoding of the sketch, the same for all ways."""

    query: str
    way: str
    pairs: int
    milliseconds: float
    map_100: float
    top: list[int]


def measure(index: Index, matcher: model.Matcher, queries: Sequence[Query]) -> list[Found]:
    searcher = Searcher(index, matcher)
    searchers = {
        way: Searcher(index, matcher, Settings.model_construct(nprobe=clusters)) for way, clusters in BY_VECTOR.items()
    }
    labels = np.array([PurePosixPath(index.photo(photo).paths[0]).parent.name for photo in index.ids.tolist()])
    label_of = dict(zip(index.ids.tolist(), labels.tolist(), strict=True))
    found = []
    for query in tqdm(queries, desc="searching", unit="query", disable=not sys.stderr.isatty()):
        sketch, relevant = query.image(), min(K, max(1, int((labels == query.label).sum())))
        searcher.search(sketch, TunedQuery(k=K, things="one"))  # to warm up
        for way, asked in WAYS.items():
            # A search for several things compares the regions of all candidates, whatever the way.
            outcome = searchers.get(way, searcher).search(sketch, TunedQuery(k=K, things="one", **asked))
            ids, timings = [hit.id for hit in outcome.results], outcome.timings_ms
            hits = [label_of[photo] == query.label for photo in ids]
            took, precision = timings.clusters + timings.photos + timings.diffusion, average_precision(hits, relevant)
            found.append(Found(query.name, way, outcome.pairs_scored, took, precision, ids[:TOP]))
    return found


def rows(found: Sequence[Found]) -> list[Row]:
    """A row for each way: means, their differences from the exhaustive search with 95% intervals, and median times."""
    by_way: dict[str, dict[str, Found]] = {}
    for one in found:
        by_way.setdefault(one.way, {})[one.query] = one
    out: list[Row] = []
    for way in WAYS:
        truth = by_way.get(f"{PLAIN if way.startswith(PLAIN) else ''}{EXHAUSTIVE}", {})
        pairs = [(one, truth[query]) for query, one in by_way.get(way, {}).items() if query in truth]
        if not pairs:
            continue
        figures = np.array([[one.map_100 for one in pair] for pair in pairs])
        counts = np.array([[one.pairs for one in pair] for pair in pairs]).mean(axis=0)
        times = np.median([[one.milliseconds for one in pair] for pair in pairs], axis=0)
        row: Row = {
            "way": f"{way} (the default)" if way == DEFAULT else way,
            "pairs scored": float(counts[0]),
            "times fewer": float(counts[1] / max(1, counts[0])),
            "time (ms)": float(times[0]),
            "mAP@100": f"{figures[:, 0].mean():.3f}",
        }
        if not way.endswith(EXHAUSTIVE):
            (change,) = bootstrap(figures[:, :1] - figures[:, 1:])
            row["mAP@100"] = f"{row['mAP@100']}; {change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})"
        shared = float(np.mean([len({*a.top} & {*b.top}) / max(1, len(b.top)) for a, b in pairs]))
        out.append(row | {f"of the exhaustive best {TOP}": shared})
    return out


def average_precision(hits: Sequence[bool], relevant: int) -> float:
    """Interpolated as in `model.metrics.query_metrics`, of the first K; relevant: how many of these may be right."""
    found = np.array(hits, dtype=np.bool_)
    precision = found.cumsum() / np.arange(1, len(found) + 1)
    # The highest precision at each rank or beyond it.
    area = float((np.maximum.accumulate(precision[::-1])[::-1] * found).sum())
    return area / relevant


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("two_stage", __doc__, device=True)
    command.add_argument("--drawn", type=int, metavar="N", help="draw so many photos (without real ones 500)")
    command.add_argument("--queries", type=int, metavar="N", help="only the first N queries")
    command.add_argument(
        "--split", choices=["train", "val", "unseen"], help="only sketches of this part of the data's split"
    )
    command.add_argument("--per-class", type=int, default=10, metavar="N", help="--split: sketches of each class (10)")
    options = command.begin(arguments)
    matcher = command.load()
    if "rn" not in matcher.methods:
        command.error(f"{matcher.config.name} has no relation network, so there is nothing to choose for")
    drawn = options.drawn or (DRAWN_QUICKLY if options.quick else None)
    name = "all_photos" if drawn is None else f"drawn-{drawn}"
    place = options.output / f"{name}-{matcher.checkpoint_sha256[:8]}"
    per_class = PER_CLASS if options.split is None else {options.split: options.per_class}
    queries = prepare(place, matcher, drawn, per_class)[: options.queries or (QUICK_QUERIES if options.quick else None)]
    with open_index(place, matcher) as index:
        found = measure(index, matcher, queries)
        kind = "photos" if any(isinstance(query.source, Path) for query in queries) else "drawn pictures"
        result = command.result(
            "Ways to choose photos",
            by_matcher(matcher),
            said=f"{len(queries):,} queries, {index.photo_count:,} {kind} in {index.cluster_count:,} clusters by "
            f"{index.manifest.embedder.name}; differences from scoring all, with 95% intervals, by resampling queries.",
            rows=rows(found),
        )
    command.save(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

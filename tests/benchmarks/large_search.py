"""A large gallery opened and searched in a process of its own, which says how much memory it takes.

It imports no more than a service does: what else is imported would count as its memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel

from indexer import open_index
from model import Tokens, load
from model.images import open_image
from model.network import MOST_VARIANTS
from service.schemas import SearchQuery
from service.search import Defaults, Searcher
from service.search.first_stage import choose, joined
from service.search.gallery.pool import Pool
from service.search.parts import encode_parts
from service.search.plan import RERANK, plan_search
from service.search.ranking import best_first
from service.search.stopwatch import Stopwatch

MIB = 1 << 20
PARTS = ("encode", "clusters", "photos", "diffusion", "total")
FILTER = SearchQuery.model_validate({"folder": ("007", "011"), "after": "1972-01-01"})
FILTERED = 10
_BLOCK = 1 << 14


class Asked(BaseModel):
    """What to measure: an index, a checkpoint, and the sketches to search with. made_seconds: see ``Row``."""

    place: Path
    weights: Path
    sketches: list[Path]
    made_seconds: float


class Row(BaseModel):
    """One gallery.

    Attributes:
        inverted: whether it was searched by an inverted file.
        made_seconds: to write the index. disk_mib: its files, and lookup_mib those that a search looks photos up by.
        open_seconds: to open the index and get ready to search.
        before_mib: resident memory of the process with the network before that, opened_mib after that, and searched_mib
            after all queries; of the last, own_mib is its own, and the rest are files that the system may drop.
        p50_ms, p95_ms: of a query, and of its parts.
        filtered_ms: the same of a query with a filter, the median, and the first one, which reads the catalog.
        found: the share of the exact best RERANK photos by [Ret] that were chosen, the mean.
    """

    photos: int
    clusters: int
    inverted: bool
    made_seconds: float
    disk_mib: float
    lookup_mib: float
    open_seconds: float
    before_mib: float
    opened_mib: float
    searched_mib: float
    own_mib: float
    p50_ms: dict[str, float]
    p95_ms: dict[str, float]
    filtered_ms: tuple[float, float]
    found: float


def resident() -> tuple[float, float]:
    """MiB of memory of this process that are resident, and of these its own; nothing where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan"), float("nan")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["RssAnon"].split()[0]) / 1024


def measure(asked: Asked) -> Row:
    """Open and search one gallery. Called in a process of its own, or its memory is that of all before it."""
    matcher = load(asked.weights, variants=MOST_VARIANTS)
    drawn = [open_image(path) for path in asked.sketches]
    matcher.encode(matcher.prepare(drawn[0], "sketch")[None], "sketch")
    before, _ = resident()
    start = time.perf_counter()
    index = open_index(asked.place, matcher)
    searcher = Searcher(index, matcher)
    opened_in = time.perf_counter() - start
    opened, _ = resident()
    searcher.search(drawn[0], SearchQuery())
    found = [searcher.search(sketch, SearchQuery()) for sketch in drawn]
    searched, own = resident()
    filtered = [searcher.search(sketch, FILTER) for sketch in drawn[:FILTERED]]
    of_filtered = [outcome.timings.total for outcome in filtered]
    times = {part: [getattr(outcome.timings, part) for outcome in found] for part in PARTS}
    files = [(entry.name, entry.size) for entry in index.manifest.files]
    files += [(entry.name, entry.size) for segment in index.manifest.segments for entry in segment.files]
    lookup = sum(size for name, size in files if name.startswith(("inverted", "places")))
    row = Row(
        photos=index.photo_count,
        clusters=index.cluster_count,
        inverted=index.inverted is not None,
        made_seconds=asked.made_seconds,
        disk_mib=sum(size for _, size in files) / MIB,
        lookup_mib=lookup / MIB,
        open_seconds=opened_in,
        before_mib=before,
        opened_mib=opened,
        searched_mib=searched,
        own_mib=own,
        p50_ms={part: float(np.median(values)) for part, values in times.items()},
        p95_ms={part: float(np.quantile(values, 0.95)) for part, values in times.items()},
        filtered_ms=(float(np.median(of_filtered)), of_filtered[0]),
        found=share_found(searcher, drawn),
    )
    index.close()
    return row


def share_found(searcher: Searcher, drawn: Sequence[Image.Image]) -> float:
    """The share of the exact best RERANK photos by [Ret] that a search chooses, the mean over the queries."""
    matcher, index, scorer = searcher.matcher, searcher.index, searcher.scorer
    plan = plan_search(SearchQuery(thin=RERANK), matcher, Defaults())
    parts = [encode_parts(sketch, matcher, Stopwatch(matcher.device)) for sketch in drawn]
    chosen = [joined(choose(scorer, one, plan, Pool(scorer)).portions) for one in parts]
    together = Tokens.cat([one.sketch for one in parts])
    scores = np.empty((len(parts), index.photo_count), np.float32)
    for start in range(0, index.photo_count, _BLOCK):
        places = np.arange(start, min(start + _BLOCK, index.photo_count))
        scores[:, places] = matcher.scores(together, Tokens.of_ret(index.photo_ret(places)), "ret").numpy()
    exact = [best_first(index.ids, of_one, RERANK) for of_one in scores]
    return float(np.mean([np.isin(best, rows).mean() for best, rows in zip(exact, chosen, strict=True)]))


if __name__ == "__main__":
    print(measure(Asked.model_validate_json(sys.argv[1])).model_dump_json())

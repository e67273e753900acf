"""Ways to choose the photos that are scored, compared with scoring all of them; `make bench`.

The gallery is all photos of SKETCH_SEARCH_DATA, or else drawn ones. Drawn photos are no harder than the sample gallery:
the ratios then say what a way saves, and little about the network. Every query goes through all ways and is written
down before the next one begins, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel
from tqdm import tqdm

import model
from indexer import Index, open_index
from model.evaluation.resampling import Interval, bootstrap
from model.metrics import list_metrics
from service.schemas import SearchQuery
from service.search.plan import RERANK
from service.search.searcher import Searcher
from service.search.shown.outcome import SearchOutcome
from tests.benchmarks.circumstances import BenchmarkResult, circumstances, described, named, peak_mib
from tests.benchmarks.command import Command
from tests.benchmarks.galleries import Query, prepare

K = 100
TOP = 20
NPROBES = (1, 2, 4, 8, 16, 32)
EXHAUSTIVE = "exhaustive"
# Ways that rank by plain relation scores, as the student system does that the two stages come from.
PLAIN = "plain, "
_plain = {"method": "rn"}
# What a search does without options.
DEFAULT = f"ret, thin {RERANK}"
WAYS: dict[str, dict[str, Any]] = {
    EXHAUSTIVE: {"nprobe": "all"},
    **{f"clusters, nprobe {n}": {"nprobe": n} for n in NPROBES},
    **{f"ret, thin {n}": {"select": "ret", "thin": n} for n in (32, 64, RERANK, 192, 384)},
    "method ret, diffused": {"method": "ret", "diffuse": True},
    PLAIN + EXHAUSTIVE: {"nprobe": "all", **_plain},
    **{f"{PLAIN}clusters, nprobe {n}": {"nprobe": n, **_plain} for n in (1, 4, 16)},
    **{f"{PLAIN}ret, thin {n}": {"select": "ret", "thin": n, **_plain} for n in (96, 192, 384)},
}
FIGURES = ("map_100", "precision_100", "recall_100")
DRAWN_QUICKLY = 150
QUICK_QUERIES = 4


class Found(BaseModel):
    """What one way found for one query.

    Attributes:
        milliseconds: to choose, score and diffuse. The sketch's encoding is left out; it is the same for all ways.
        map_100: interpolated average precision of the first 100, over min(100, relevant photos).
        precision_100: relevant share of the first min(100, relevant). recall_100: relevant photos among the first 100.
        top: ids of the best TOP.
    """

    query: str
    label: str
    unseen: bool
    way: str
    pairs: int
    milliseconds: float
    map_100: float
    precision_100: float
    recall_100: float
    top: list[int]


class Row(BaseModel):
    """One way, compared with the exhaustive search; plain ways with the plain exhaustive search.

    Attributes:
        pairs: scored for a query, the mean.
        milliseconds: a query, the median.
        pairs_ratio, time_ratio: those of the exhaustive search, divided by these.
        figures: their means.
        differences: from the exhaustive search, with 95% intervals by resampling queries.
        agreement: the share of the exhaustive search's best TOP that are among this way's, the mean.
    """

    way: str
    queries: int
    pairs: float
    pairs_ratio: float
    milliseconds: float
    time_ratio: float
    figures: dict[str, float]
    differences: dict[str, Interval]
    agreement: float


class Result(BenchmarkResult):
    """One run.

    Attributes:
        drawn: whether the photos were drawn for it.
        embedder: what they are clustered by.
    """

    drawn: bool
    photos: int
    clusters: int
    embedder: str
    all_queries: list[Row]
    unseen_queries: list[Row]


def measure(index: Index, matcher: model.Matcher, queries: Sequence[Query], log: Path) -> list[Found]:
    """Search every query by every way; what ``log`` already has is kept and not searched again."""
    searcher = Searcher(index, matcher)
    possible = [way for way in WAYS if matcher.calibration.diffusion is not None or "diffuse" not in WAYS[way]]
    labels = np.array([PurePosixPath(index.photo(photo).paths[0]).parent.name for photo in index.ids.tolist()])
    label_of = dict(zip(index.ids.tolist(), labels.tolist(), strict=True))
    where = {"device": described(matcher.device), "dtype": named(matcher.dtype), "generation": index.generation}
    header = json.dumps({"checkpoint": matcher.checkpoint_sha256, "photos": index.photo_count, "ways": WAYS, **where})
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    # A line that was being written when the run was stopped is no JSON.
    kept = [line for line in lines[1:] if line.endswith("}")] if lines[:1] == [header] else []
    found = [Found.model_validate_json(line) for line in kept]
    done = {(one.query, one.way) for one in found}
    log.write_text("".join(f"{line}\n" for line in (header, *kept)), encoding="utf-8")
    with log.open("a", encoding="utf-8") as file:
        for query in tqdm(queries, desc="searching", unit="query", disable=not sys.stderr.isatty()):
            sketch, relevant = query.image(), int((labels == query.label).sum())
            ways = [way for way in possible if (query.name, way) not in done]
            if ways:
                searcher.search(sketch, SearchQuery(k=K))  # to warm up
            for way in ways:
                outcome = searcher.search(sketch, SearchQuery(k=K, **WAYS[way]))
                found.append(_judged(query, way, outcome, label_of, relevant))
                file.write(found[-1].model_dump_json() + "\n")
            file.flush()
    return found


def rows(found: Sequence[Found]) -> list[Row]:
    """A row for each way."""
    by_way: dict[str, dict[str, Found]] = {}
    for one in found:
        by_way.setdefault(one.way, {})[one.query] = one
    out: list[Row] = []
    for way in WAYS:
        truth = by_way.get(f"{PLAIN if way.startswith(PLAIN) else ''}{EXHAUSTIVE}", {})
        pairs = [(one, truth[query]) for query, one in by_way.get(way, {}).items() if query in truth]
        if not pairs:
            continue
        figures = np.array([[[getattr(one, name) for name in FIGURES] for one in pair] for pair in pairs])
        counts = np.array([[one.pairs for one in pair] for pair in pairs]).mean(axis=0)
        times = np.median([[one.milliseconds for one in pair] for pair in pairs], axis=0)
        row = Row(
            way=way,
            queries=len(pairs),
            pairs=counts[0],
            pairs_ratio=counts[1] / max(1, counts[0]),
            milliseconds=times[0],
            time_ratio=times[1] / times[0],
            figures=dict(zip(FIGURES, figures[:, 0].mean(axis=0).tolist(), strict=True)),
            differences=dict(zip(FIGURES, bootstrap(figures[:, 0] - figures[:, 1]), strict=True)),
            agreement=float(np.mean([len({*a.top} & {*b.top}) / max(1, len(b.top)) for a, b in pairs])),
        )
        out.append(row)
    return out


def _judged(query: Query, way: str, outcome: SearchOutcome, label_of: dict[int, str], relevant: int) -> Found:
    hits = [label_of[hit.id] == query.label for hit in outcome.results]
    figures = list_metrics(hits, relevant, K)
    least = max(1, min(K, relevant))
    timings = outcome.timings
    return Found(
        query=query.name,
        label=query.label,
        unseen=query.unseen,
        way=way,
        pairs=outcome.pairs_scored,
        milliseconds=timings.clusters + timings.photos + timings.diffusion,
        map_100=figures.average_precision,
        precision_100=sum(hits[:least]) / least,
        recall_100=figures.recall,
        top=[hit.id for hit in outcome.results[:TOP]],
    )


def table(result: Result) -> str:
    """The result as a table for the terminal."""
    lines = [
        f"{result.circumstances.network}: {result.photos} photos in {result.clusters} clusters by {result.embedder}"
    ]
    for title, part in (("all queries", result.all_queries), ("queries of unseen classes", result.unseen_queries)):
        if not part:
            continue
        lines += [
            f"\n{title}, {part[0].queries}; differences to the exhaustive search",
            f"{'way':<30}{'pairs':>8}{'fewer':>8}{'ms':>9}{'faster':>8}{'mAP@100':>9}{'difference':>27}{'P@100':>7}"
            f"{'R@100':>7}{'agree':>7}",
        ]
        for row in part:
            change = row.differences["map_100"]
            told = f"{change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})"
            lines.append(
                f"{row.way:<30}{row.pairs:>8.0f}{row.pairs_ratio:>7.1f}x{row.milliseconds:>9.1f}{row.time_ratio:>7.1f}x"
                f"{row.figures['map_100']:>9.3f}{told:>27}{row.figures['precision_100']:>7.3f}"
                f"{row.figures['recall_100']:>7.3f}{row.agreement:>7.2f}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the tables, write OUTPUT/two_stage.json."""
    command = Command("two_stage", __doc__, device=True)
    command.add_argument("--drawn", type=int, metavar="N", help="draw so many photos (without real ones 500)")
    command.add_argument("--queries", type=int, metavar="N", help="only the first N queries")
    options, call = command.begin(arguments)
    matcher = command.load(options)
    if "rn" not in matcher.methods:
        command.error(f"{matcher.config.name} has no relation network, so there is nothing to choose for")
    drawn = options.drawn or (DRAWN_QUICKLY if options.quick else None)
    name = "all_photos" if drawn is None else f"drawn-{drawn}"
    place = options.output / f"{name}-{matcher.checkpoint_sha256[:8]}"
    queries = prepare(place, matcher, drawn)[: options.queries or (QUICK_QUERIES if options.quick else None)]
    with open_index(place, matcher) as index:
        found = measure(index, matcher, queries, place.with_suffix(".jsonl"))
        result = Result(
            circumstances=circumstances(matcher, call),
            peak_mib=peak_mib(matcher.device),
            drawn=not any(isinstance(query.source, Path) for query in queries),
            photos=index.photo_count,
            clusters=index.cluster_count,
            embedder=index.manifest.embedder.name,
            all_queries=rows(found),
            unseen_queries=rows([one for one in found if one.unseen]),
        )
    document = options.output / "two_stage.json"
    result.save(document)
    print(f"{table(result)}\n{document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Results in Markdown: one function for each block of docs/figures.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.evaluation.resampling import Interval
from tests.benchmarks import (
    growth,
    indexing,
    large,
    load_result,
    pen_up,
    query_parts,
    scoring,
    sharded_result,
    two_stage,
)
from tests.benchmarks.circumstances import BenchmarkResult

PARTS = {"score": "a pair", "encode": "a picture"}
WAITS = {
    "pause": "until the search is sent: the page waits for the next stroke",
    "search": "until it is answered",
    "show": "until the photos are shown",
    "pen-up to photos": "from the end of the stroke to its photos",
}


def scores(result: scoring.Result) -> str:
    """The time of a pair and of a picture, each way compared with the released computation."""
    rows, before = [], ""
    for row in result.rows:
        part = "" if row.part == before else PARTS[row.part]
        before = row.part
        rows.append([part, f"{row.name}, {row.dtype}", _time(row.microseconds / 1000), _times(row.ratio)])
    network = result.circumstances.network
    chunks = ", ".join(f"{chunk.pairs}: {_time(chunk.microseconds / 1000)}" for chunk in result.chunks)
    moved = [f"{one.dtype} by at most {one.score:.2g}" for one in result.differences]
    return _paragraphs(
        _table(["", "way", "time", "faster"], rows),
        f"The time of a pair of {network} in {result.circumstances.dtype}, by the number scored at once: {chunks}.",
        f"Change of a score of {network} by a lower precision, over {result.compared:,} pairs: {'; '.join(moved)}.",
    )


def ways(result: two_stage.Result) -> str:
    """Ways to choose photos: all queries, then those of unseen classes."""
    kind = "drawn pictures" if result.drawn else "photos"
    said = (
        f"{result.photos:,} {kind} in {result.clusters:,} clusters by {result.embedder}; differences from scoring all,"
    )
    parts = [f"{said} with 95% intervals, by resampling queries."]
    for name, rows in (("All", result.all_queries), ("Unseen classes", result.unseen_queries)):
        if rows:
            parts += [f"{name}: {rows[0].queries:,} queries.", _table(_WAYS_HEAD, [_way(row) for row in rows])]
    return _paragraphs(*parts)


_WAYS_HEAD = [
    "way",
    "pairs scored",
    "time",
    "mAP@100",
    "Prec@100",
    "recall@100",
    f"of the exhaustive best {two_stage.TOP}",
]


def _way(row: two_stage.Row) -> list[str]:
    exhaustive = row.way.endswith(two_stage.EXHAUSTIVE)
    counts = [f"{row.pairs:,.0f}", _time(row.milliseconds)]
    if not exhaustive:
        counts = [f"{counts[0]} ({_times(row.pairs_ratio)} fewer)", f"{counts[1]} ({_times(row.time_ratio)} faster)"]
    figures = [f"{row.figures[name]:.3f}" for name in two_stage.FIGURES]
    if not exhaustive:
        changes = [_change(row.differences[name]) for name in two_stage.FIGURES]
        figures = [f"{figure}; {change}" for figure, change in zip(figures, changes, strict=True)]
    name = f"{row.way} (the default)" if row.way == two_stage.DEFAULT else row.way
    return [name, *counts, *figures, f"{row.agreement:.2f}"]


def grown(result: growth.Result) -> str:
    """Milliseconds a query, by the size of the gallery and the way."""
    taken = {(point.photos, point.way): point.milliseconds for point in result.points}
    clusters = {point.photos: point.clusters for point in result.points}
    room = {one.photos: [f"{one.disk_mib:,.0f} MiB", f"{one.memory_mib:,.0f} MiB"] for one in result.room}
    rows = [
        [f"{photos:,} ({count:,})", *(_time(taken.get((photos, way))) for way in growth.WAYS), *room[photos]]
        for photos, count in clusters.items()
    ]
    return _table(["photos (clusters)", *growth.WAYS, "index on disk", "kept in memory"], rows)


def large_galleries(result: large.Result) -> str:
    """Time, memory and disk that large galleries take, and what is found of the exact first photos."""
    rows = []
    for row in result.rows:
        parts = [_time(row.p50_ms[part]) for part in ("total", "encode", "clusters", "photos", "diffusion")]
        rows.append(
            [
                f"{row.photos:,}",
                "inverted file" if row.inverted else "all photos",
                *parts,
                _time(row.p95_ms["total"]),
                _time(row.filtered_ms[0]),
                f"{row.found:.3f}",
                f"{row.open_seconds:.2f} s",
                f"{row.opened_mib - row.before_mib:,.0f} MiB",
                f"{row.searched_mib - row.before_mib:,.0f} MiB",
                f"{row.disk_mib:,.0f} MiB",
            ]
        )
    said = f"{result.queries:,} sketches; galleries made of {result.source:,} photos in {{}} clusters by [Ret]."
    counts = ", ".join(f"{row.clusters:,}" for row in result.rows)
    before = ", ".join(f"{row.before_mib:,.0f}" for row in result.rows)
    return _paragraphs(
        said.format(counts) + f" Memory of the process with the network alone: {before} MiB.", _table(_LARGE_HEAD, rows)
    )


_LARGE_HEAD = [
    "photos",
    "[Ret] is compared with",
    "a query (p50)",
    "encode",
    "choose",
    "score",
    "diffuse",
    "a query (p95)",
    "with a filter (p50)",
    "found of the exact first 96",
    "open the index",
    "memory after that",
    "after all queries",
    "index on disk",
]


def sharded(result: sharded_result.Result) -> str:
    """Time and rate of shards by Ray, each beside one index without Ray that took turns with them."""
    rows = []
    for row in result.rows:
        name = "1 shard by Ray" if row.shards == 1 else f"{row.shards} shards by Ray"
        rows.append(["one index, without Ray", str(result.cores), *_side(row.plain, 1.0, 1.0)])
        rows.append([name, str(row.threads), *_side(row.by_ray, row.time_ratio, row.rate_ratio)])
    alone = result.without_ray
    told = [
        f"{result.photos:,} photos; {result.queries} queries alone, then {result.clients} clients for "
        f"{result.turns} x {result.seconds:.0f} s, of each server. All processes share {result.cores} cores.",
    ]
    if result.ray_ms is not None:
        told.append(
            f"Ray itself costs a query {_time(result.ray_ms)}: the median of one shard by Ray, less that of one index."
        )
    told.append(
        f"While no Ray runs on the machine, one index answers in {_time(alone.p50_ms)} (p95 {_time(alone.p95_ms)}). "
        f"Scores with and without Ray differ by at most {max(row.difference for row in result.rows):.2g}."
    )
    return _paragraphs(told[0], _table(_SHARDED_HEAD, rows), " ".join(told[1:]))


_SHARDED_HEAD = [
    "gallery",
    "threads of a process",
    "a query alone (p50)",
    "p95",
    "as a multiple",
    "encode",
    "choose",
    "score",
    "diffuse",
    "answered a second",
    "as a multiple",
]


def _side(side: sharded_result.Side, time_ratio: float, rate_ratio: float) -> list[str]:
    alone = side.alone
    stages = [_time(alone.stages_ms[stage]) for stage in ("encode", "clusters", "photos", "diffusion")]
    times = [_time(alone.p50_ms), _time(alone.p95_ms), f"{time_ratio:.2f}x"]
    return [*times, *stages, f"{side.per_second:.1f}", f"{rate_ratio:.2f}x"]


def indexed(result: indexing.Result) -> str:
    """Photos indexed in a second."""
    rows = [
        [
            row.name,
            f"{row.photos_per_second:,.1f}",
            _times(row.ratio),
            "" if row.peak_mib is None else f"{row.peak_mib:,.0f} MiB",
        ]
        for row in result.rows
    ]
    said = f"{max(row.photos for row in result.rows):,} {'photos' if result.real else 'drawn pictures'}"
    fewer = ", ".join(f"{row.photos} for {row.name}" for row in result.rows[:2])
    return _paragraphs(f"{said}; {fewer}.", _table(["", "photos a second", "faster", "memory"], rows))


def overload(result: load_result.Result) -> str:
    """The answers to searches that come at random moments."""
    rows = [
        [f"{_times(level.share)} the capacity", f"{level.offered:.1f}", *_answers(level.answers)]
        for level in result.levels
    ]
    return _paragraphs(
        _load_head(result)
        + f", capacity {result.capacity:.1f} searches a second, as {load_result.EAGER} clients get them.",
        _table(["load", "came a second", *_ANSWERS_HEAD], rows),
    )


def clients(result: load_result.Result) -> str:
    """The answers to clients who ask again as soon as they are answered."""
    rows = [[str(row.clients), *_answers(row.answers)] for row in result.clients]
    return _paragraphs(f"{_load_head(result)}.", _table(["clients", *_ANSWERS_HEAD], rows))


_ANSWERS_HEAD = ["answered", "answered a second", "429", "failed", "p50", "p95", "p99", "memory grew by"]


def _load_head(result: load_result.Result) -> str:
    return f"{result.photos:,} photos, queue of {result.queue}, {result.seconds:.0f} s a row"


def _answers(answers: load_result.Answers) -> list[str]:
    counts = [f"{answers.answered:,}", f"{answers.per_second:.1f}", f"{answers.refused:,}", f"{answers.failed:,}"]
    times = [_time(value) for value in (answers.p50_ms, answers.p95_ms, answers.p99_ms)]
    return [*counts, *times, f"{answers.grown_mib:.1f} MiB"]


def drawing(result: pen_up.Result) -> str:
    """The time from the end of a stroke to its photos, on a page of photos and on one of kinds."""
    views = [result.parts(view) for view in pen_up.VIEWS]
    rows = [
        [wait, *(_time(figure) for parts in views for figure in np.percentile(parts[name], [50, 95]).tolist())]
        for name, wait in WAITS.items()
    ]
    heads = [f"{view}: {figure}" for view in pen_up.VIEWS for figure in ("median", "95% within")]
    return _table([f"{len(result.lifts)} strokes", *heads], rows)


def parts_of_queries(result: query_parts.Result) -> str:
    """The time of a search with further parts, beside that by the sketch alone."""
    rows = [[row.name, _time(row.median_ms), _time(row.p95_ms), f"{row.ratio:.2f}x"] for row in result.rows]
    return _paragraphs(
        f"{result.searches} searches of each kind, which take turns; {result.photos:,} photos.",
        _table(["a search by", "median", "95% within", "as a multiple"], rows),
    )


def foot(result: BenchmarkResult) -> str:
    """A line that says where, when and by what command it was measured."""
    head = result.circumstances
    memory = "" if result.peak_mib is None else f" (at most {result.peak_mib:,.0f} MiB of its memory)"
    threads = f"{head.threads} thread{'s' if head.threads > 1 else ''}"
    where = f"{head.machine}; {head.device}{memory}, {threads}, {head.dtype}; PyTorch {head.torch}"
    return f"{where}; {head.date}: `{head.command}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(parts)


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return ""
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f} µs"
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.1f} ms"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 20 else f"{ratio:.1f}x"


def _change(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"

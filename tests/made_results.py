"""Made-up results, as benches write them, for the tests of what is computed of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests import scale
from tests.benchmarks import large_search, sharded_result
from tests.benchmarks.circumstances import Circumstances

SHARD = scale.Shard(
    photos=1000,
    clusters=30,
    width=192,
    photo_bytes=16_000.0,
    memory_bytes=5e8,
    encode_ms=20.0,
    choose_ms=4.0,
    score_ms=30.0,
    diffuse_ms=6.0,
)


def head(bench: str, *, network: str = "zse-ti16", quick: bool = False) -> Circumstances:
    return Circumstances(
        network=network,
        machine="A processor, 2 cores",
        device="cpu",
        threads=2,
        dtype="bfloat16",
        python="3.11.7",
        torch="2.14.1",
        date="2026-11-20",
        command=f"python -m tests.benchmarks.{bench} --output build/bench",
        quick=quick,
    )


def gallery(photos: int, p50_ms: Mapping[str, float], p95_ms: Mapping[str, float]) -> large_search.Row:
    """A row of the bench ``large``; times are those of a query's parts."""
    return large_search.Row(
        photos=photos,
        clusters=photos // 1000,
        inverted=photos > 1000,
        made_seconds=1,
        disk_mib=100 + photos / 64,
        lookup_mib=photos / 5000,
        open_seconds=0.321,
        before_mib=500.4,
        opened_mib=600,
        searched_mib=700,
        own_mib=300,
        p50_ms=dict(p50_ms),
        p95_ms=dict(p95_ms),
        filtered_ms=(34.56, 45.67),
        found=0.9912,
    )


def side(p50: float, stages_ms: Mapping[str, float], per_second: float) -> sharded_result.Side:
    """One of the two servers of a row of the bench ``sharded``."""
    alone = sharded_result.Times(p50_ms=p50, p95_ms=2 * p50, stages_ms=dict(stages_ms))
    return sharded_result.Side(alone=alone, per_second=per_second)


def sharded(without_ray: sharded_result.Times, rows: Sequence[sharded_result.Row]) -> sharded_result.Result:
    return sharded_result.Result(
        circumstances=head("sharded"),
        photos=8000,
        cores=2,
        queries=50,
        clients=4,
        seconds=6,
        turns=2,
        without_ray=without_ray,
        rows=list(rows),
    )

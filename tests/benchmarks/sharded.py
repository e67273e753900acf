"""What a search of shards by Ray takes, beside one of the same gallery without Ray; `make bench`.

The gallery is made of the rows of a small index (``large_index``): once as one index, and once in so many shards. Real
servers answer over HTTP, one without Ray and one with it, in turns. The Ray cluster is one node on this machine. So all
shards share its cores, which several machines would not do.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from indexer import build
from service.settings import Settings
from tests.benchmarks.circumstances import Call, circumstances_at
from tests.benchmarks.command import Command
from tests.benchmarks.galleries import draw_gallery
from tests.benchmarks.large import sketches
from tests.benchmarks.large_index import write_large_index
from tests.benchmarks.load_result import EAGER
from tests.benchmarks.sharded_result import STAGES, Result, Row, Side, Times, table
from tests.ray_cluster import ray_cluster_of, set_environment
from tests.service.server_process import address, running
from tests.service.sharding.served_on_ray import served_on_ray

# So many that each of four shards sends as many candidates as a search asks it for.
PHOTOS, QUICK_PHOTOS = 8000, 200
SHARDS, QUICK_SHARDS = (1, 2, 4), (1,)
QUERIES, QUICK_QUERIES = 50, 2
SECONDS, QUICK_SECONDS = 6.0, 0.2
TURNS, QUICK_TURNS = 2, 1
SKETCHES = 25
DRAWN = 200
_CORES = os.cpu_count() or 1
_TIMEOUT = 300.0


def search(client: httpx.Client, sketch: bytes) -> tuple[float, dict[str, Any]]:
    """Milliseconds that a search takes, and its answer. RuntimeError: a shard is missing, so it is no whole search."""
    begun = time.perf_counter()
    answer = client.post("/search", content=sketch).raise_for_status()
    taken = 1000 * (time.perf_counter() - begun)
    found: dict[str, Any] = answer.json()
    if not found["complete"]:
        raise RuntimeError(f"{client.base_url} has answered without {', '.join(found['missing_shards'])}")
    return taken, found


def in_turns(urls: Sequence[str], drawn: Sequence[bytes], queries: int) -> tuple[list[Times], float]:
    """Search at each of ``urls`` in turn, ``queries`` times at each; each sketch once before, which is not counted.

    Returns the times at each, and the greatest difference between the scores at the same rank.
    """
    taken: list[list[float]] = [[] for _ in urls]
    stages: list[list[Mapping[str, float]]] = [[] for _ in urls]
    difference = 0.0
    clients = [httpx.Client(base_url=url, timeout=_TIMEOUT) for url in urls]
    try:
        for number, sketch in enumerate(islice(cycle(drawn), len(drawn) + queries)):
            scores = []
            for client, times, parts in zip(clients, taken, stages, strict=True):
                milliseconds, found = search(client, sketch)
                scores.append([result["score"] for result in found["results"]])
                if number >= len(drawn):
                    times.append(milliseconds)
                    parts.append(found["timings_ms"])
            difference = max(difference, float(np.ptp(scores, axis=0).max()))
    finally:
        for client in clients:
            client.close()
    return [_times(*both) for both in zip(taken, stages, strict=True)], difference


def _times(taken: Sequence[float], stages: Sequence[Mapping[str, float]]) -> Times:
    return Times(
        p50_ms=float(np.median(taken)),
        p95_ms=float(np.percentile(taken, 95)),
        stages_ms={stage: float(np.median([one[stage] for one in stages])) for stage in STAGES},
    )


def answered(url: str, drawn: Sequence[bytes], clients: int, seconds: float) -> tuple[int, float]:
    """Have clients search for ``seconds``, each again and again. Returns the answers, and seconds until the last."""
    begun = time.perf_counter()

    def ask(first: int) -> int:
        with httpx.Client(base_url=url, timeout=_TIMEOUT) as client:
            for number, sketch in enumerate(islice(cycle(drawn), first, None), 1):
                search(client, sketch)
                if time.perf_counter() - begun >= seconds:
                    return number
        raise AssertionError("sketches never end")

    with ThreadPoolExecutor(clients) as pool:
        count = sum(pool.map(ask, range(clients)))
    return count, time.perf_counter() - begun


def compare(plain: str, by_ray: str, drawn: Sequence[bytes], shards: int, threads: int, plan: Result) -> Row:
    """Measure two servers of one gallery, as ``plan`` says: how many queries, clients, turns and seconds."""
    both = (plain, by_ray)
    (of_plain, of_ray), difference = in_turns(both, drawn, plan.queries)
    counts, taken = dict.fromkeys(both, 0), dict.fromkeys(both, 0.0)
    for _ in range(plan.turns):
        for url in both:
            count, seconds = answered(url, drawn, plan.clients, plan.seconds)
            counts[url] += count
            taken[url] += seconds
    rates = [counts[url] / taken[url] for url in both]
    return Row(
        shards=shards,
        threads=threads,
        plain=Side(alone=of_plain, per_second=rates[0]),
        by_ray=Side(alone=of_ray, per_second=rates[1]),
        difference=difference,
    )


def write_shards(folder: Path, source: Path, photos: int, shards: int) -> list[Path]:
    """Write a gallery in shards of equal size, as far as that goes. Returns their folders, lowest ids first."""
    bounds = [number * photos // shards for number in range(shards + 1)]
    places = [folder / f"{shards}-shards" / f"shard-{number:04}" for number in range(shards)]
    for place, (first, end) in zip(places, pairwise(bounds), strict=True):
        place.parent.mkdir(exist_ok=True)
        write_large_index(place, source, end - first, inverted=False, first=first)
    return places


@contextmanager
def served_plain(settings: Settings, log: Path) -> Iterator[str]:
    """Serve one index without Ray, with a thread for each core. Yields its address."""
    with running(settings, log, SBIR_THREADS=str(_CORES)) as process:
        yield address(process)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/sharded.json."""
    command = Command("sharded", __doc__, device=False)
    command.add_argument("--shards", type=int, nargs="+", metavar="N", help="how many shards, one after the other")
    command.add_argument("--source", type=Path, metavar="INDEX", help="the index that the gallery is made of")
    options, call = command.begin(arguments)
    if find_spec("ray") is None:
        command.error("Ray is not installed; the extra `ray` has it")
    set_environment()
    weights, document = command.weights(options), options.output / "sharded.json"
    with tempfile.TemporaryDirectory(prefix="sharded-") as name:
        folder = Path(name)
        source = options.source
        if source is None:
            source = folder / "source"
            draw_gallery(folder / "photos", DRAWN // 10 if options.quick else DRAWN)
            build([folder / "photos"], source, command.load(options), embedder="ret")
        drawn = [path.read_bytes() for path in sketches(QUICK_QUERIES if options.quick else SKETCHES, folder)]
        counts = options.shards or (QUICK_SHARDS if options.quick else SHARDS)
        result = measure(folder, source, weights, drawn, counts, document, call)
    print(f"{table(result)}\n{document}")
    return 0


def measure(
    folder: Path,
    source: Path,
    weights: Path,
    drawn: Sequence[bytes],
    counts: Sequence[int],
    document: Path,
    call: Call,
) -> Result:
    """Measure a gallery in each of these numbers of shards. Writes ``document`` after each of them."""
    photos = QUICK_PHOTOS if call.quick else PHOTOS
    (index,) = write_shards(folder, source, photos, 1)
    plain = Settings(index=index, weights=weights)
    queries = QUICK_QUERIES if call.quick else QUERIES
    with served_plain(plain, folder / "plain.log") as url:
        (without_ray,), _ = in_turns([url], drawn, queries)
        result = Result(
            circumstances=circumstances_at(url, call),
            finished=False,
            photos=photos,
            cores=_CORES,
            queries=queries,
            clients=EAGER,
            seconds=QUICK_SECONDS if call.quick else SECONDS,
            turns=QUICK_TURNS if call.quick else TURNS,
            without_ray=without_ray,
            rows=[],
        )
        for count in counts:
            folders = write_shards(folder, source, photos, count)
            threads = max(1, _CORES // count)
            log = folder / f"{count}.log"
            # Room for one copy of each shard and one of the encoder.
            with (
                ray_cluster_of(1, (count + 1) * threads) as cluster,
                served_on_ray(plain, folders, cluster, log, SBIR_THREADS=str(threads)) as on_ray,
            ):
                result.rows.append(compare(url, str(on_ray.http.base_url), drawn, count, threads, result))
            result.finished = count == counts[-1]
            result.save(document)
    return result


if __name__ == "__main__":
    sys.exit(main())

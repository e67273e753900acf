"""What a search of shards by Ray takes, beside one of the same gallery without Ray; `make bench`.

The gallery is made of the rows of a small index (``large_index``): once as one index, and once in so many shards. Real
servers answer over HTTP, one without Ray and one with it, in turns. The Ray cluster is one node on this machine. So all
shards share its cores, which several machines would not do.
"""

import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np

from sketch_search.model import Matcher
from sketch_search.model.matcher import KEPT
from sketch_search.service.schemas.query import SearchQuery
from sketch_search.service.settings import Settings
from sketch_search.service.sharding import Pending, packed_nearest
from tests.benchmarks.command import Command, by_server, turned
from tests.benchmarks.galleries import drawn_index
from tests.benchmarks.large import sketches
from tests.benchmarks.large_index import write_large_shards
from tests.benchmarks.results import Row
from tests.ray_cluster import ray_cluster_of, set_environment
from tests.service.served import address, running
from tests.service.sharding.served_on_ray import served_on_ray
from tests.service.sharding.shards_here import LocalLink, searcher_of

T = TypeVar("T")

SHARDS, QUICK_SHARDS = (1, 2, 4, 8), (1,)
# Stages of a search as the service times them, by their columns.
STAGES = {"encode": "encode", "score": "photos", "all stages": "total"}
DRAWN = 200
_CORES = os.cpu_count() or 1
_TIMEOUT = 300.0


@dataclass(frozen=True)
class Plan:
    """The plan of a measurement: the sizes of the gallery, the sketches, into how many they are turned, and queries."""

    photos: int
    sketches: int
    turned: int
    queries: int


WHOLE = Plan(photos=8000, sketches=20, turned=2 * KEPT, queries=25)
QUICK = Plan(photos=200, sketches=2, turned=2, queries=2)


def search(client: httpx.Client, sketch: bytes) -> tuple[float, dict[str, Any]]:
    """Milliseconds that a search takes, and its answer. RuntimeError: a shard is missing, so it is no whole search."""
    begun = time.perf_counter()
    answer = client.post("/search", content=sketch).raise_for_status()
    taken = 1000 * (time.perf_counter() - begun)
    found: dict[str, Any] = answer.json()
    if not found["complete"]:
        raise RuntimeError(f"{client.base_url} has answered without {', '.join(found['missing_shards'])}")
    return taken, found


def in_turns(urls: Sequence[str], drawn: Sequence[bytes], queries: int) -> list[Row]:
    """Search at each of ``urls`` in turn, ``queries`` times at each; each sketch once before, which is not counted.

    Returns the median and the 95th percentile of the milliseconds at each, from the first byte sent to the last byte
    read, with the median of each stage.
    """
    taken: list[list[float]] = [[] for _ in urls]
    answers: list[list[dict[str, Any]]] = [[] for _ in urls]
    with ExitStack() as opened:
        clients = [opened.enter_context(httpx.Client(base_url=url, timeout=_TIMEOUT)) for url in urls]
        for number, sketch in enumerate(islice(cycle(drawn), len(drawn) + queries)):
            for client, times, kept in zip(clients, taken, answers, strict=True):
                milliseconds, found = search(client, sketch)
                if number >= len(drawn):
                    times.append(milliseconds)
                    kept.append(found)
    return [_times(*both) for both in zip(taken, answers, strict=True)]


def _times(taken: Sequence[float], answers: Sequence[Mapping[str, Any]]) -> Row:
    return {
        "a query (ms)": float(np.median(taken)),
        "p95 (ms)": float(np.percentile(taken, 95)),
        **{
            f"{name} (ms)": float(np.median([one["timings_ms"][stage] for one in answers]))
            for name, stage in STAGES.items()
        },
    }


def write_shards(folder: Path, source: Path, photos: int, shards: int) -> list[Path]:
    """Write a gallery in shards of whole cells. Returns their folders."""
    places = [folder / f"{shards}-shards" / f"shard-{number:04}" for number in range(shards)]
    places[0].parent.mkdir(exist_ok=True)
    write_large_shards(places, source, photos)
    return places


class Weighed(LocalLink):
    """A link that counts the bytes of what is asked and answered, as they are between processes."""

    out = back = 0

    def ask(self, generation_id: str, question: Callable[..., T], *arguments: Any) -> Pending[T]:
        sent = pickle.dumps((question, arguments))
        question, arguments = pickle.loads(sent)
        answer = pickle.dumps(super().ask(generation_id, question, *arguments)(0))
        self.out += len(sent)
        self.back += len(answer)
        return lambda seconds: pickle.loads(answer)


def sent(folders: Sequence[Path], matcher: Matcher, drawn: Sequence[bytes]) -> Row:
    """Measures, without Ray, what a query sends to shards and gets back, and how many shards it asks: the means."""
    links = [Weighed(f"shard-{number}", folder, matcher) for number, folder in enumerate(folders)]
    searcher = searcher_of(links, matcher)
    for link in links:
        link.out = link.back = 0
    for sketch in drawn:
        searcher.search(matcher.open(sketch, "sketch"), SearchQuery())
    calls = sum(question is packed_nearest for link in links for question in link.asked)
    sizes = {"sent (KiB)": sum(link.out for link in links), "answered (KiB)": sum(link.back for link in links)}
    return {"shards asked": calls / len(drawn), **{name: size / 1024 / len(drawn) for name, size in sizes.items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("sharded", __doc__)
    command.add_argument("--shards", type=int, nargs="+", metavar="N", help="how many shards, one after the other")
    command.add_argument("--source", type=Path, metavar="INDEX", help="the index that the gallery is made of")
    options = command.begin(arguments)
    if find_spec("ray") is None:
        command.error("Ray is not installed; the extra `ray` has it")
    set_environment()
    with tempfile.TemporaryDirectory(prefix="sharded-") as name:
        folder = Path(name)
        count = DRAWN // 10 if options.quick else DRAWN
        source = options.source or drawn_index(folder / "source", count, command.load())
        measure(command, folder, source, options.shards or (QUICK_SHARDS if options.quick else SHARDS))
    return 0


def measure(command: Command, folder: Path, source: Path, counts: Sequence[int]) -> None:
    """Measure a gallery in each of these numbers of shards."""
    plan = QUICK if command.options.quick else WHOLE
    # More than a server keeps encoded, so that a second turn encodes them again.
    drawn = turned([path.read_bytes() for path in sketches(plan.sketches, folder)], plan.turned)
    (index,) = write_shards(folder, source, plan.photos, 1)
    plain = Settings(index=index, weights=command.weights())
    with running(plain, folder / "plain.log", SKETCH_SEARCH_THREADS=str(_CORES)) as process:
        url = address(process)
        result = command.result("Shards", by_server(url))
        (without_ray,) = in_turns([url], drawn, plan.queries)
        result.rows.append({"gallery": "one index, while no Ray runs", "threads": _CORES, **without_ray})
        for count in counts:
            folders = write_shards(folder, source, plan.photos, count)
            threads = max(1, _CORES // count)
            log = folder / f"{count}.log"
            # Room for one copy of each shard and one of the encoder.
            with (
                ray_cluster_of((count + 1) * threads) as cluster,
                served_on_ray(plain, folders, cluster.address, log, SKETCH_SEARCH_THREADS=str(threads)) as on_ray,
            ):
                alone, by_ray = in_turns([url, str(on_ray.http.base_url)], drawn, plan.queries)
            by_ray |= sent(folders, command.load(), drawn)
            result.rows += [
                {"gallery": f"one index beside {count}", "threads": _CORES, **alone},
                {"gallery": f"{count} by Ray", "threads": threads, **by_ray},
            ]
    result.said = f"{plan.photos:,} photos, {plan.queries} queries of each server. All processes share {_CORES} cores."
    command.save(result)


if __name__ == "__main__":
    sys.exit(main())

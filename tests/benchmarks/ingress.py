"""Measures what the ingress of a gallery in shards takes by itself, by how many shards it asks; `make bench`.

Many small shards are in a few processes of a Ray cluster on this machine, and are asked as if each were apart. CPU is
that of this process alone, which asks them: what shards compute is not in it. The time until the answer is there is,
since they share the cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np

from model import Matcher, Tokens, load
from model.images import open_image
from model.ranking import SHORTLIST
from service.gallery import Gallery, LocalGallery, ShardQuery
from service.search.plan import RERANK
from service.serving.live_index import LiveIndex
from service.serving.on_ray import answer_of, state_of
from service.sharding import Pending, Shards, ShardUnavailable, State
from tests.benchmarks.command import Command, by_matcher
from tests.benchmarks.galleries import drawn_index
from tests.benchmarks.large import sketches
from tests.benchmarks.large_index import write_large_shards
from tests.benchmarks.results import Row
from tests.ray_cluster import ray_cluster_of, set_environment

P = ParamSpec("P")
T = TypeVar("T")

SECONDS = 600.0
DRAWN = 200


@dataclass(frozen=True)
class Plan:
    """The plan of a measurement: shards of so many photos, in so many processes, and how often each number is asked."""

    shards: int
    photos: int
    hosts: int
    queries: int


WHOLE = Plan(shards=128, photos=1000, hosts=4, queries=50)
QUICK = Plan(shards=3, photos=60, hosts=1, queries=2)


class Host:
    """Several shards in one process of Ray's."""

    def __init__(self, folders: Sequence[Path], weights: Path) -> None:
        matcher = load(weights)
        self._shards = [LiveIndex(folder, lambda: matcher) for folder in folders]

    def state(self, number: int) -> State:
        """Returns the generation of a shard."""
        return state_of(self._shards[number])

    def answer(self, number: int, generation_id: str, question: Callable[..., Any], *arguments: Any) -> Any:
        """Has a question answered by a shard."""
        return answer_of(self._shards[number], generation_id, question, *arguments)


@dataclass(frozen=True)
class Sent(Generic[T]):
    """A question on its way to a host."""

    reference: Any

    def result(self, seconds: float) -> T:
        """See ``Pending``."""
        import ray

        try:
            found: T = ray.get(self.reference, timeout=seconds)
        except ray.exceptions.RayError as error:
            raise ShardUnavailable(str(error)) from error
        return found


class HostedShard:
    """The way to one of a host's shards; see ``ShardLink``."""

    def __init__(self, name: str, host: Any, number: int) -> None:
        self.name, self._host, self._number = name, host, number

    def state(self) -> Pending[State]:
        """See ``ShardLink.state``."""
        return Sent(self._host.state.remote(self._number))

    def ask(
        self,
        generation_id: str,
        question: Callable[Concatenate[LocalGallery, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> Pending[T]:
        """See ``ShardLink.ask``."""
        assert not options
        return Sent(self._host.answer.remote(self._number, generation_id, question, *arguments))


def hosted(places: Sequence[Path], weights: Path, count: int) -> tuple[Gallery, list[int]]:
    """Opens the shards in so many processes of the cluster that this process is connected to.

    Returns their gallery, and how many clusters each has.
    """
    import ray

    hosts = [ray.remote(num_cpus=1)(Host).remote(places[first::count], weights) for first in range(count)]
    links = [HostedShard(place.name, hosts[n % count], n // count) for n, place in enumerate(places)]
    shards = Shards(links, SECONDS)
    shards.refresh(strict=True)
    opened = shards.opened()
    assert opened is not None
    return opened(()), [info.clusters for info in shards.infos()]


def measure(gallery: Gallery, drawn: Sequence[Tokens], asked: int, clusters: Sequence[int], queries: int) -> Row:
    """Searches the first ``asked`` shards, all of whose clusters are opened. clusters: how many each shard has."""
    opened = np.arange(sum(clusters[:asked]))
    query = ShardQuery("rn", gallery.clusters.mean, clusters=opened, count=SHORTLIST, rerank=RERANK)
    cpu, taken = [], []
    for number in range(-len(drawn), queries):
        question = replace(query, sketch=drawn[number % len(drawn)])
        begun, used = time.perf_counter(), time.process_time()
        gallery.find(question)
        if number >= 0:
            cpu.append(1000 * (time.process_time() - used))
            taken.append(1000 * (time.perf_counter() - begun))
    return {
        "shards asked": asked,
        "CPU of the ingress (ms)": float(np.median(cpu)),
        "until all have answered (ms)": float(np.median(taken)),
    }


def fitted(rows: Sequence[Row]) -> tuple[float, float]:
    """Fits a line through the ingress's CPU by shards asked. Returns the milliseconds of none, and of each."""
    asked, cpu = (np.array([row[name] for row in rows], float) for name in ("shards asked", "CPU of the ingress (ms)"))
    each, none = np.polyfit(asked, cpu, 1)
    return float(none), float(each)


def encoded(matcher: Matcher, paths: Sequence[Path]) -> list[Tokens]:
    """Encodes sketches, each a batch of one."""
    return [matcher.encode(matcher.prepare(open_image(path), "sketch")[None], "sketch") for path in paths]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/ingress.json."""
    command = Command("ingress", __doc__)
    command.add_argument("--source", type=Path, metavar="INDEX", help="the index that shards are made of")
    options = command.begin(arguments)
    if find_spec("ray") is None:
        command.error("Ray is not installed; the extra `ray` has it")
    set_environment()
    plan, matcher = QUICK if options.quick else WHOLE, command.load()
    with tempfile.TemporaryDirectory(prefix="ingress-") as name:
        folder = Path(name)
        source = options.source or drawn_index(folder / "source", DRAWN, matcher)
        places = [folder / f"shard-{number:04}" for number in range(plan.shards)]
        write_large_shards(places, source, plan.shards * plan.photos)
        result = command.result("Ingress", by_matcher(matcher))
        with ray_cluster_of(plan.hosts) as cluster:
            import ray

            ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
            gallery, clusters = hosted(places, command.weights(), plan.hosts)
            drawn = encoded(matcher, sketches(5, folder))
            for asked in [n for n in (1, 2, 4, 8, 16, 32, 64) if n < plan.shards] + [plan.shards]:
                result.rows.append(measure(gallery, drawn, asked, clusters, plan.queries))
    none, each = fitted(result.rows)
    result.said = (
        f"{plan.shards} shards of {plan.photos:,} photos in {plan.hosts} processes; medians of {plan.queries} queries, "
        f"without their encoding. A line through the ingress's CPU: {none:.2f} ms, and {each:.3f} ms a shard asked."
    )
    command.save(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

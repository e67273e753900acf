"""Measures what the ingress of a gallery in shards takes by itself, by how many shards it asks; `make bench`.

Many small shards are in a few processes of Ray on this machine, and are asked as if each were apart. CPU is
that of this process alone, which does all of a search but the sketch's encoding and what shards compute. The time until
the answer is there has that, too, since they share the cores. Besides those of the shards there are empty clusters, as
many as a hundred million photos have: a sketch is compared with them, too.
"""

import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from sketch_search.indexer.distributed.builds import place_clusters
from sketch_search.model import Matcher, Tokens, load
from sketch_search.model.engine import Floats, unit
from sketch_search.model.images import Pixels, open_image
from sketch_search.model.search import Clusters
from sketch_search.model.search.clusters import assign, train_centroids
from sketch_search.service.gallery import OpenGallery
from sketch_search.service.schemas.info import ShardInfo
from sketch_search.service.schemas.query import SearchQuery
from sketch_search.service.search import Searcher
from sketch_search.service.serving.on_ray import Copies, Shard
from sketch_search.service.settings import NPROBE, Settings
from sketch_search.service.sharding import Pending, ShardLink, Shards, State
from sketch_search.service.sharding.gallery import packed_nearest
from tests.benchmarks.command import Command, by_matcher
from tests.benchmarks.galleries import drawn_index
from tests.benchmarks.large import sketches
from tests.benchmarks.large_index import real_vectors, write_large_shards
from tests.benchmarks.results import Row
from tests.ray_cluster import ray_cluster_of, set_environment
from tests.service.sharding.shards_here import Computed

T = TypeVar("T")

SECONDS = 600.0
DRAWN = 200
# Photos of a cluster, and sketches, to see on how many shards the best clusters of a sketch lie.
PER_CLUSTER, SKETCHES = 8, 40


@dataclass(frozen=True)
class Plan:
    """The plan of a measurement: shards of so many photos, in so many processes; clusters with empty ones; queries."""

    shards: int
    photos: int
    hosts: int
    clusters: int
    queries: int


WHOLE = Plan(shards=128, photos=1000, hosts=4, clusters=100_000, queries=20)
QUICK = Plan(shards=3, photos=60, hosts=1, clusters=50, queries=2)


class Host:
    """Several shards in one process of Ray's, which answers one question after another."""

    def __init__(self, folders: Sequence[Path], weights: Path) -> None:
        matcher = load(weights)
        self._shards = [Shard(folder, lambda: matcher) for folder in folders]

    def state(self, number: int) -> State:
        return self._shards[number].state()

    def answer(self, number: int, generation_id: str, question: Callable[..., T], *arguments: Any) -> T:
        return self._shards[number].answer(generation_id, question, *arguments)


class HostedShard:
    """The way to one of a host's shards; see ``ShardLink``.

    Attributes:
        weighing: whether it is counted now how often shards are searched, ``asked``, and the bytes of all answers as
            pickles, ``weighed``. Shards are then asked one after the other.
    """

    weighing: ClassVar[bool] = False
    weighed: ClassVar[int] = 0
    asked: ClassVar[int] = 0

    def __init__(self, name: str, host: Copies, number: int) -> None:
        self.name, self._host, self._number = name, host, number

    def state(self) -> Pending[State]:
        return self._host.call("state", self._number)

    def ask(self, generation_id: str, question: Callable[..., T], *arguments: Any) -> Pending[T]:
        pending: Pending[T] = self._host.call("answer", self._number, generation_id, question, *arguments)
        if not HostedShard.weighing:
            return pending
        found = pending.result(SECONDS)
        HostedShard.asked += question is packed_nearest
        HostedShard.weighed += len(pickle.dumps(found))
        return Computed(lambda: found)


@dataclass(frozen=True)
class Drawn:
    """A sketch: prepared, (H, W, 3) uint8, and encoded, a batch of one."""

    pixels: Pixels
    tokens: Tokens


class Encoded(Matcher):
    """A matcher for which a sketch is encoded already."""

    tokens: Tokens

    def encode(self, *_: Any) -> Tokens:
        return self.tokens


def hosted(places: Sequence[Path], weights: Path, count: int) -> list[HostedShard]:
    """Opens the shards in so many processes of the cluster that this process is connected to."""
    import ray

    host = ray.remote(num_cpus=1)(Host)
    hosts = [Copies("host", [host.remote(places[first::count], weights)]) for first in range(count)]
    return [HostedShard(place.name, hosts[n % count], n // count) for n, place in enumerate(places)]


def opened(links: Sequence[ShardLink]) -> tuple[OpenGallery, tuple[ShardInfo, ...]]:
    """Opens the gallery of these shards, and describes them."""
    shards = Shards(links, SECONDS)
    shards.refresh(strict=True)
    return shards.opened(), shards.infos()


def widened(own: Clusters, count: int, drawn: Sequence[Drawn]) -> Clusters:
    """Adds empty clusters until there are ``count``, in random directions that are far from the sketches."""
    found = len(own.sizes)
    count = max(count, found)
    towards = np.random.default_rng(0).normal(size=(count, own.vectors.shape[1]), scale=own.vectors.shape[1] ** -0.5)
    vectors = unit(towards - 2 * unit(np.mean([sketch.tokens.ret for sketch in drawn], axis=0)))
    vectors[:found] = own.vectors
    # Those of empty clusters are never read, and take no memory.
    sizes, features, positions = (
        np.zeros((count, *array.shape[1:]), array.dtype) for array in (own.sizes, own.features, own.positions)
    )
    sizes[:found], features[:found], positions[:found] = own.sizes, own.features, own.positions
    return Clusters(sizes, vectors, features, positions)


def measure(
    gallery: OpenGallery, shards: Sequence[ShardInfo], asked: int, matcher: Matcher, drawn: Sequence[Drawn], plan: Plan
) -> Row:
    """Searches the first ``asked`` shards, all of whose clusters are opened."""
    photos = gallery([shard.name for shard in shards[asked:]])
    photos.clusters = widened(photos.clusters, plan.clusters, drawn)
    settings = Settings.model_construct(nprobe=sum(shard.clusters for shard in shards[:asked]))
    known = Encoded(matcher.engine, matcher.checkpoint_sha256, variants=matcher.variants)
    searcher, cpu, taken = Searcher(photos, known, settings), [], []
    HostedShard.weighed = HostedShard.asked = 0
    for number in range(-len(drawn), plan.queries):
        sketch = drawn[number % len(drawn)]
        # Each sketch once before, when nothing is timed.
        HostedShard.weighing = number < 0
        known.tokens = sketch.tokens
        begun, used = time.perf_counter(), time.process_time()
        searcher.search(sketch.pixels, SearchQuery())
        if number >= 0:
            cpu.append(1000 * (time.process_time() - used))
            taken.append(1000 * (time.perf_counter() - begun))
    return {
        "shards asked": asked,
        "CPU of the ingress (ms)": float(np.median(cpu)),
        "until the answer (ms)": float(np.median(taken)),
        "answered (KiB)": HostedShard.weighed / 1024 / len(drawn),
    }


def shards_asked(vectors: Floats, drawn: Sequence[Drawn], counts: Sequence[int] = (4, 8, 32, 100)) -> list[Row]:
    """Divides photos with these vectors (p, d), in clusters of PER_CLUSTER, among so many shards as a build does.

    Counts the shards that have the NPROBE best clusters of each sketch; beside them, if shards had any clusters.
    """
    nearest = assign(vectors, train_centroids(vectors, len(vectors) // PER_CLUSTER))
    found, clusters = np.unique(nearest, return_inverse=True)
    centroids = np.stack([vectors[clusters == number].mean(axis=0) for number in range(len(found))])
    opened = np.argsort(-np.concatenate([sketch.tokens.ret for sketch in drawn]) @ centroids.T, axis=1)[:, :NPROBE]
    rows: list[Row] = []
    for count in (count for count in counts if count <= len(found)):
        placed = place_clusters(centroids, np.bincount(clusters), count)
        anywhere = np.random.default_rng(0).permutation(placed)
        rows.append(
            {
                "shards": count,
                "asked": float(np.mean([len(np.unique(placed[some])) for some in opened])),
                "asked if clusters were anywhere": float(np.mean([len(np.unique(anywhere[some])) for some in opened])),
            }
        )
    return rows


def fitted(rows: Sequence[Row]) -> tuple[float, float]:
    """Fits a line through the ingress's CPU by shards asked. Returns the milliseconds of none, and of each."""
    asked, cpu = (np.array([row[name] for row in rows], float) for name in ("shards asked", "CPU of the ingress (ms)"))
    each, none = np.polyfit(asked, cpu, 1)
    return float(none), float(each)


def encoded(matcher: Matcher, paths: Sequence[Path]) -> list[Drawn]:
    """Prepares and encodes sketches."""
    drawn = []
    for path in paths:
        image = open_image(path)
        tokens = matcher.encode(matcher.prepare(image, "sketch")[None], "sketch")
        drawn.append(Drawn(matcher.preprocessing.pixels(image, "sketch"), tokens))
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
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
        vectors = np.array(real_vectors(source))
        result = command.result("Ingress", by_matcher(matcher))
        with ray_cluster_of(plan.hosts) as cluster:
            import ray

            ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
            gallery, shards = opened(hosted(places, command.weights(), plan.hosts))
            many = encoded(matcher, sketches(2 if options.quick else SKETCHES, folder))
            drawn = many[:5]
            for asked in [n for n in (1, 4, 16, 64) if n < plan.shards] + [plan.shards]:
                result.rows.append(measure(gallery, shards, asked, matcher, drawn, plan))
                if HostedShard.asked < asked * len(drawn):
                    raise RuntimeError(f"{HostedShard.asked} of {asked} shards were searched by {len(drawn)} sketches")
    none, each = fitted(result.rows)
    result.said = (
        f"{plan.shards} shards of {plan.photos:,} photos in {plan.hosts} processes, {plan.clusters:,} clusters; "
        f"medians of {plan.queries} queries, without their encoding. A line through the ingress's CPU: "
        f"{none:.2f} ms, and {each:.3f} ms a shard asked."
    )
    asked_of = command.result("Shards asked", by_matcher(matcher), rows=shards_asked(vectors, many))
    asked_of.said = (
        f"{len(vectors):,} photos in clusters of {PER_CLUSTER}, {NPROBE} of which a search opens; means of "
        f"{len(many)} sketches."
    )
    command.save(result, asked_of)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Counts and times the service's work, for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sketch_search.service.errors import NotReady
from sketch_search.service.schemas.search import StageTimings
from sketch_search.service.serving.live import Live
from sketch_search.service.serving.worker import Worker

# From one stage of a small network on a fast machine to an exhaustive search on a slow one.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Other verbs are counted as "other", because clients could invent any number of them.
VERBS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics(Collector):
    """The metrics of one application, in a separate registry. Names begin with ``sbir_`` or ``process_``."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._stages = Histogram(
            "sbir_search_stage_seconds",
            "Time of each stage of a search; queue is the wait before it, total the sum of the others.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        for stage in ("queue", *StageTimings.model_fields):
            self._stages.labels(stage)
        self._incomplete = Counter(
            "sbir_searches_incomplete", "Searches answered without some shards.", registry=self.registry
        )
        self._requests = Counter(
            "sbir_http_requests", "Requests answered.", ["verb", "route", "status"], registry=self.registry
        )
        self._request_seconds = Histogram(
            "sbir_http_request_seconds",
            "Time of a request, from its headers to the end of the answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("sbir_http_requests_in_flight", "Requests being answered.", registry=self.registry)
        build = Gauge("sbir_build_info", "Always 1; the version of the program.", ["version"], registry=self.registry)
        build.labels(version).set(1)

    def observe(self, live: Live, worker: Worker) -> None:
        """Reports the state of these objects from now on. Call it only once."""
        self._live, self._worker = live, worker
        self.registry.register(self)

    def answered(self, verb: str, route: str, status: int, seconds: float) -> None:
        """Counts a request; ``route`` is the template of its path."""
        self._requests.labels(verb if verb in VERBS else "other", route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def waited(self, seconds: float) -> None:
        """Records how long a search waited for its turn."""
        self._stages.labels("queue").observe(seconds)

    def searched(self, timings: StageTimings, *, complete: bool = True) -> None:
        """Records a search that was answered. complete: whether all photos were searched."""
        if not complete:
            self._incomplete.inc()
        for stage in StageTimings.model_fields:
            self._stages.labels(stage).observe(getattr(timings, stage) / 1000)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yields the metrics that are read on request."""
        held = self._worker.held
        waiting = max(0, held - self._worker.at_once)
        yield GaugeMetricFamily("sbir_queue_places_taken", "Searches that are running or waiting.", value=held)
        yield GaugeMetricFamily("sbir_queue_depth", "Searches that are waiting.", value=waiting)
        yield GaugeMetricFamily("sbir_queue_limit", "Searches that may wait.", value=self._worker.queue)
        yield CounterMetricFamily("sbir_index_swaps", "Generations that have replaced another.", value=self._live.swaps)
        if self._live.shards:
            up = GaugeMetricFamily("sbir_shard_up", "1 while a shard answers.", labels=["shard"])
            photos = GaugeMetricFamily("sbir_shard_photos", "Photos of a shard.", labels=["shard"])
            for shard in self._live.shards:
                up.add_metric([shard.name], shard.answers)
                photos.add_metric([shard.name], shard.photos)
            yield from (up, photos)
        refused = self._live.source.refused is not None
        yield GaugeMetricFamily("sbir_index_refused", "1 while a newer generation is refused.", value=refused)
        try:
            engine = self._live.engine()
            (model, index), created = engine.info(), engine.gallery.created
        except NotReady:
            yield GaugeMetricFamily("sbir_ready", "1 while searches can be answered.", value=0)
            return
        yield GaugeMetricFamily("sbir_ready", "1 while searches can be answered.", value=1)
        info = GaugeMetricFamily(
            "sbir_index_info", "Always 1; the network and the index in use.", labels=["generation", "model", "embedder"]
        )
        info.add_metric([index.generation, model.name, index.embedder], 1)
        yield info
        # Shards may have different ones; this is the newest.
        names = index.generation.split("+")
        number = max(int("".join(filter(str.isdigit, name)) or 0) for name in names)
        yield GaugeMetricFamily("sbir_index_generation", "Number of the generation searched.", value=number)
        if created is not None:
            at = "When it was made, in seconds since 1970."
            yield GaugeMetricFamily("sbir_index_created_seconds", at, value=created.timestamp())
        yield GaugeMetricFamily("sbir_index_photos", "Photos searched.", value=index.photos)
        yield GaugeMetricFamily("sbir_index_clusters", "Clusters they are in.", value=index.clusters)

"""Opens the current generation, the newest that passes a trial search, and engines over it; metrics of both."""

import asyncio
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sketch_search.indexer import Address, IndexerError, IndexRefused, current_stamp, open_index
from sketch_search.indexer.store.location import THUMBNAILS
from sketch_search.model import Matcher, ModelError
from sketch_search.model.decoding import RunJob
from sketch_search.model.search import methods_of
from sketch_search.model.terminal import printable
from sketch_search.service.engine import SearchEngine, open_matcher
from sketch_search.service.errors import NotReady
from sketch_search.service.gallery import LocalGallery, ThumbnailCache
from sketch_search.service.schemas.explain import ShardInfo
from sketch_search.service.schemas.query import SearchQuery
from sketch_search.service.schemas.search import StageTimings
from sketch_search.service.search import Searcher, TextTowers
from sketch_search.service.serving.worker import Worker
from sketch_search.service.settings import Settings, index_path
from sketch_search.service.sharding import Shards

# The reason for refusing searches before the first attempt is over.
STARTING = "the server has just started and is opening the network and the index"
# Results of each search of the trial.
RESULTS = 5
# Seconds after which a refused generation is tried again: a disk may have been mounted, or a checkpoint added.
RETRY_SECONDS = 10.0
# Errors whose message is for the person who runs the server; for any other, the log has the trace.
_FORESEEN = (ModelError, IndexerError, OSError)

# Seconds between two checks for new generations, which for one index check a file's date. A shard that comes back
# may be left out for this long.
POLL_SECONDS = 0.5
THUMBNAIL_BYTES, THUMBNAIL_FILE_BYTES = 32 * 2**20, 256 * 2**20

log = logging.getLogger("sketch_search")

# Identifies a generation on the disk (``indexer.current_stamp``); None if there is no index.
Stamp = tuple[int, ...] | None


@dataclass(frozen=True)
class _Attempt:
    """An attempt to open a generation: when it ended, why it was refused, whether the checkpoint was opened."""

    stamp: Stamp
    ended: float
    refusal: str | None = None
    opened_matcher: bool = True


class LiveIndex:
    """An index here in its newest tried generations, each closed once neither kept nor held. Threads may share it."""

    infos: tuple[ShardInfo, ...] = ()

    def __init__(
        self, folder: Path, matcher: Callable[[], Matcher], gallery_roots: Sequence[Address] = (), keeps: int = 1
    ) -> None:
        """Opens nothing yet. gallery_roots: their places here; none as built. keeps: how many generations."""
        self._folder, self._matcher, self._roots, self._keeps = folder, matcher, gallery_roots or None, keeps
        # The newest is the last.
        self._kept: tuple[LocalGallery, ...] = ()
        self._refreshing = threading.Lock()
        self._is_closed = False
        self._last: _Attempt | None = None

    @property
    def refused(self) -> str | None:
        """The reason why the newest generation was rejected while an older one is in use, or None."""
        return self._last.refusal if self._kept and self._last is not None else None

    @property
    def reason(self) -> str:
        return (self._last.refusal if self._last is not None else None) or STARTING

    @property
    def behind(self) -> bool:
        """Whether a generation is in use while a newer one has not been tried."""
        return bool(self._kept) and self._last is not None and self._last.stamp != current_stamp(self._folder)

    @property
    def lacks_index(self) -> bool:
        """Whether there is no index, and nothing else is missing."""
        return current_stamp(self._folder) is None and (self._last is None or self._last.opened_matcher)

    @property
    def newest(self) -> LocalGallery | None:
        return next(reversed(self._kept), None)

    def find(self, generation_id: str) -> LocalGallery | None:
        """Returns a generation, which stays open while it is held; None if it is not kept."""
        return next((gallery for gallery in self._kept if gallery.generation_id == generation_id), None)

    def gallery(self) -> LocalGallery:
        """Returns the newest generation. Raises NotReady if none is open."""
        if (gallery := self.newest) is None:
            raise NotReady(self.reason)
        return gallery

    def close(self) -> None:
        with self._refreshing:
            self._is_closed = True
            self._kept = ()

    def refresh(self) -> bool:
        """Opens the current generation, unless in use or refused. Returns True if it came into use."""
        before = self.newest
        with self._refreshing:
            while not self._is_closed and self._is_worth_an_attempt(stamp := current_stamp(self._folder)):
                try:
                    self._open(stamp)
                # Whatever is wrong with a new generation, the old one stays in use.
                except Exception as error:
                    # Builds that end meanwhile may delete the generation being opened; then the newest counts.
                    if stamp == current_stamp(self._folder):
                        self._refuse(error, stamp)
                        break
        return self.newest is not before

    def _open(self, stamp: Stamp) -> None:
        matcher = self._matcher()
        index = open_index(self._folder, matcher, gallery_roots=self._roots)
        try:
            fresh = LocalGallery(index, matcher)
            check_searches(Searcher(fresh, matcher))
        except BaseException:
            index.close()
            raise
        weakref.finalize(fresh, index.close)
        others = [kept for kept in self._kept if kept.generation_id != fresh.generation_id]
        self._kept = tuple([*others, fresh][-self._keeps :])
        self._last = _Attempt(stamp, time.monotonic())

    def _is_worth_an_attempt(self, stamp: Stamp) -> bool:
        if self._last is None or self._last.stamp != stamp:
            return True
        return self._last.refusal is not None and time.monotonic() - self._last.ended >= RETRY_SECONDS

    def _refuse(self, error: Exception, stamp: Stamp) -> None:
        foreseen = isinstance(error, _FORESEEN)
        said = str(error) if foreseen else f"it cannot be opened ({type(error).__name__}); the log has more."
        reason = printable(said)
        # The same refusal is logged only once.
        if self._last is None or (reason, stamp) != (self._last.refusal, self._last.stamp):
            kept = "not ready" if self.newest is None else f"generation {self.newest.generation} stays live"
            unforeseen = error.__cause__ if foreseen else error
            log.warning("%s: %s", kept, reason, exc_info=None if isinstance(unforeseen, _FORESEEN) else unforeseen)
        self._last = _Attempt(stamp, time.monotonic(), reason, isinstance(error, IndexerError))


def check_searches(searcher: Searcher) -> None:
    """Searches with a small drawing, by default and by each method. Raises IndexRefused if that fails."""
    gallery = searcher.gallery
    expected = min(RESULTS, gallery.photo_count)
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((12, 20, 52, 60), outline="black", width=2)
    drawing = searcher.matcher.preprocessing.drawing(picture)
    for method in ("auto", *methods_of(searcher.matcher, gallery.tokens_kept)):
        query = SearchQuery(k=RESULTS, nprobe=None if method == "auto" else 1, method=method)
        try:
            answer = searcher.search(drawing, query)
            scores = [hit.score for hit in answer.results] + [cluster.score for cluster in answer.clusters]
            if len(answer.results) != expected or not all(map(math.isfinite, scores)):
                raise ValueError("photos are missing, or their scores are not numbers")
        # Damaged arrays can make numpy or PyTorch fail in any way.
        except Exception as error:
            raise IndexRefused(
                f"generation {gallery.generation} failed its trial: a search by {method} failed "
                f"({type(error).__name__}: {error}); run `sketch-search index verify`."
            ) from error


class Live:
    """Makes engines over the newest generation, whose files close when no longer held. Threads may share it.

    source: the index or the shards. swaps: how many replacements. looked: set once the source was tried.
    """

    def __init__(
        self, settings: Settings, run: RunJob, matcher: Matcher | None = None, shards: Shards | None = None
    ) -> None:
        """Opens nothing yet. matcher, shards: None for the checkpoint and the index of the settings."""
        self._settings, self._run = settings, run
        self._matcher = cache(lambda: matcher or open_matcher(settings))
        self._towers = cache(lambda: TextTowers(self._matcher().device))
        folder = index_path(settings) / THUMBNAILS if shards is None else None
        self.source = shards or LiveIndex(index_path(settings), self._matcher, settings.gallery)
        self._thumbnails = ThumbnailCache(THUMBNAIL_BYTES, folder, THUMBNAIL_FILE_BYTES)
        self._refreshing = threading.Lock()
        self._seen: str | None = None
        self._stopped = False
        self.looked = asyncio.Event()
        self.swaps = 0

    def engine(self) -> SearchEngine:
        """Returns an engine over the newest generation. Raises NotReady if none is open, or no shard answers."""
        if self._stopped:
            raise NotReady("The service has been stopped.")
        gallery = self.source.gallery()
        return SearchEngine(self._settings, self._matcher(), self._thumbnails, self._run, self._towers(), gallery)

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards of the gallery; none if it is one index on this machine."""
        return self.source.infos

    def has_folders(self) -> bool:
        """Returns False if an index here is in use and none of the folders of its photos is there."""
        return self.source.newest is None or self.source.newest.index.has_folders()

    async def watch(self) -> None:
        """Switches to new generations, until cancelled. An unforeseen error is logged; the next check may succeed."""
        logged = ""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
                logged = ""
            except Exception as error:
                if logged != repr(error):
                    log.exception("looking for a new generation failed; the current one stays")
                logged = repr(error)
            self.looked.set()
            await asyncio.sleep(POLL_SECONDS)

    def refresh(self) -> None:
        """Checks once for new generations, and switches to them. Threads may call it at once."""
        with self._refreshing:
            before = {shard.name for shard in self.shards if shard.answers}
            if self.source.refresh() or self._seen is None:
                with suppress(NotReady):
                    engine = self.engine()
                    gallery = engine.gallery
                    self.swaps += self._seen is not None
                    self._seen = gallery.generation_id
                    message = "generation %s is live, %d photos, searched with %s by %s"
                    model, _ = engine.info()
                    how = model.best_method if engine.system == "default" else f"the {engine.system} system"
                    log.info(message, gallery.generation, gallery.photo_count, model.name, how)
            for shard in self.shards:
                if shard.answers != (shard.name in before):
                    state = "answers" if shard.answers else f"is missing: {shard.reason}"
                    log.warning("shard %s %s", shard.name, state)

    def close(self) -> None:
        self._stopped = True
        self.source.close()


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
        self._stages.labels("queue").observe(seconds)

    def searched(self, timings: StageTimings, *, complete: bool = True) -> None:
        """Records a search that was answered. complete: whether all photos were searched."""
        if not complete:
            self._incomplete.inc()
        for stage in StageTimings.model_fields:
            self._stages.labels(stage).observe(getattr(timings, stage) / 1000)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
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

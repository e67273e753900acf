"""The server of a shard: it follows the generations of an index, and answers by that which a search began with."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw

from indexer import Address, IndexerError, IndexRefused, live_stamp, open_index
from model import Matcher, ModelError
from service.gallery import Call, Computed, Gallery, GenerationGone, Overview, Pending, Shard, ShardRefuses, State
from service.schemas import SearchQuery
from service.search import Searcher, methods_of

T = TypeVar("T")

# Results of each search of the trial.
RESULTS = 5
# A refused generation is tried again after this time: a disk may be mounted again, or a checkpoint put in its place.
RETRY_SECONDS = 10.0
# Errors whose message is written for whoever runs the server; of any other the log needs the trace.
_FORESEEN = (ModelError, IndexerError, OSError)

log = logging.getLogger("sketch_search")

# Tells generations on the disk apart (``indexer.live_stamp``); None if there is no index.
Stamp = tuple[int, ...] | None


@dataclass(frozen=True)
class _Attempt:
    """One attempt to open the live generation.

    Attributes:
        stamp: what was live on the disk. ended: when it was over, by the monotonic clock, in seconds.
        refusal: why that generation is not used; None where it is.
    """

    stamp: Stamp
    ended: float
    refusal: str | None


class ShardServer:
    """Answers for one shard, which is an index on this machine, by the generation that is live or by an older one.

    Its methods may be called from any thread.
    """

    def __init__(
        self, folder: Path, matcher: Callable[[], Matcher], gallery_roots: Sequence[Address] = (), keeps: int = 1
    ) -> None:
        """Opens nothing yet.

        Args:
            matcher: opens the checkpoint.
            gallery_roots: where the roots are on this machine; none for where they were built.
            keeps: generations that stay open, the newest ones; others only while somebody in this process has them.
        """
        self._folder, self._matcher, self._roots = folder, matcher, gallery_roots or None
        self._newest: deque[Shard] = deque(maxlen=keeps)
        self._opened: weakref.WeakValueDictionary[str, Shard] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._last: _Attempt | None = None

    def open(self, *, trial: bool = True) -> None:
        """Opens what is live on the disk, and takes it into use.

        trial: whether it has to answer searches as an index should first.

        Raises ModelError and IndexerError with what to do.
        """
        stamp, matcher = live_stamp(self._folder), self._matcher()
        index = open_index(self._folder, matcher, gallery_roots=self._roots)
        try:
            fresh = Shard(index, matcher)
            if trial:
                check_searches(Searcher(Gallery.of(fresh), matcher))
        except BaseException:
            index.close()
            raise
        # A search may outlive its generation. So the files are closed when nothing refers to them any more.
        weakref.finalize(fresh, index.close)
        self._opened[index.made] = fresh
        self._newest.append(fresh)
        self._last = _Attempt(stamp, time.monotonic(), None)

    def refresh(self) -> None:
        """Opens what is live on the disk, unless it is in use already or was just refused.

        Where it cannot be opened, the generation in use stays.
        """
        with self._lock:
            while self._is_worth_an_attempt(stamp := live_stamp(self._folder)):
                try:
                    self.open()
                # Whatever is wrong with a new generation, the old one has to go on.
                except Exception as error:
                    # Builds that end meanwhile delete the generation that was being opened: then the newest one counts.
                    if stamp == live_stamp(self._folder):
                        self._refuse(error, stamp)
                        return

    def _is_worth_an_attempt(self, stamp: Stamp) -> bool:
        """Returns True for a generation that was never tried, or was refused RETRY_SECONDS ago."""
        if self._last is None or self._last.stamp != stamp:
            return True
        return self._last.refusal is not None and time.monotonic() - self._last.ended >= RETRY_SECONDS

    def _refuse(self, error: Exception, stamp: Stamp) -> None:
        foreseen = isinstance(error, _FORESEEN)
        reason = str(error) if foreseen else f"it cannot be opened ({type(error).__name__}); the log has more."
        # The same refusal is logged once.
        if self._last is None or (reason, stamp) != (self._last.refusal, self._last.stamp):
            kept = f"generation {self._newest[-1].index.generation} stays live" if self._newest else "not ready"
            unforeseen = error.__cause__ if foreseen else error
            log.warning("%s: %s", kept, reason, exc_info=None if isinstance(unforeseen, _FORESEEN) else unforeseen)
        self._last = _Attempt(stamp, time.monotonic(), reason)

    def state(self) -> State:
        """Returns the generation in use. Raises ShardRefuses where there is none."""
        if not self._newest:
            self.refresh()
        refusal = None if self._last is None else self._last.refusal
        if not self._newest:
            raise ShardRefuses(refusal or "it was not opened yet")
        return State(self._newest[-1].index.made, refusal)

    def overview(self, made: str) -> Overview:
        """Summarises a generation, without keeping it open. Raises GenerationGone and ShardRefuses."""
        return self.shard(made).overview()

    def answer(self, made: str, question: Call[T]) -> T:
        """Returns the answer by a generation, and by no other.

        Raises:
            GenerationGone: it is not open here any more, and not live either.
            ShardRefuses: there is none to be opened.
        """
        return question.answer(self.shard(made))

    def shard(self, made: str) -> Shard:
        """One of its generations. Raises as ``answer`` does."""
        shard = self._opened.get(made)
        if shard is None:
            # Another copy of this shard may have seen it earlier.
            self.refresh()
            self.state()
            shard = self._opened.get(made)
        if shard is None:
            raise GenerationGone(f"generation {made} is not there any more")
        return shard


class ShardHere:
    """The link to a shard whose server is in this process, as that of one index is."""

    name = ""

    def __init__(self, server: ShardServer) -> None:
        self._server = server

    def state(self) -> Pending[State]:
        """Looks at the disk, and returns what the shard has then."""

        def looked() -> State:
            self._server.refresh()
            return self._server.state()

        return Computed(looked)

    def overview(self, made: str) -> Pending[Overview]:
        """Returns the summary of a generation, which stays open for as long as that is kept."""

        def keeping() -> Overview:
            shard = self._server.shard(made)
            return replace(shard.overview(), shard=shard)

        return Computed(keeping)

    def ask(self, made: str, question: Call[T]) -> Pending[T]:
        """Returns the answer of a generation."""
        return Computed(lambda: self._server.answer(made, question))


def check_searches(searcher: Searcher) -> None:
    """Search with a small drawing, once with nothing said but the number of results, and once by each method.

    Raises:
        IndexRefused: too few results, a score that is no number, or the search itself failed.
    """
    gallery = searcher.gallery
    for method in ("auto", *methods_of(searcher.matcher, gallery.tokens_kept)):
        query = SearchQuery(k=RESULTS, nprobe=None if method == "auto" else 1, method=method)
        try:
            found = searcher.search(_drawing(), query)
        # Damaged arrays fail in whatever way their shapes and values make numpy or PyTorch fail.
        except Exception as error:
            raise _refused(gallery.generation, f"a search by {method} failed ({type(error).__name__})") from error
        wanted = min(RESULTS, gallery.photo_count)
        if len(found.results) != wanted:
            raise _refused(
                gallery.generation, f"a search by {method} found {len(found.results)} photos instead of {wanted}"
            )
        scores = [hit.score for hit in found.results] + [cluster.score for cluster in found.clusters]
        if not all(map(math.isfinite, scores)):
            raise _refused(gallery.generation, f"a search by {method} gave a score that is no number")


def _drawing() -> Image.Image:
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((12, 20, 52, 60), outline="black", width=2)
    draw.line((8, 28, 32, 4, 56, 28), fill="black", width=2)
    return picture


def _refused(generation: str, problem: str) -> IndexRefused:
    return IndexRefused(
        f"generation {generation} did not stand its trial: {problem}; run `sketch-search index verify`."
    )

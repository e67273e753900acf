"""Runs searches in threads, with a bounded queue, beside threads that open sketches and run CLIP, all by client."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from cachetools import LRUCache

from sketch_search.model.errors import SlowImage
from sketch_search.service.errors import QueueFull
from sketch_search.service.turns import CLIP, NEW, PREPARING, SLOW, Computation, Turns

T = TypeVar("T")

# Seconds within which a slow sketch is usually prepared, and those of an ordinary one.
_SLOW_RETRY, _ORDINARY = 10, 1
# Clients of which it is known whether the latest sketch was slow.
_CLIENTS = 1000
# Clients of which nothing waits are let in until so many times the queue is there.
_BEYOND = 4
# This many jobs may wait for any time, or a slow machine would refuse almost all clients.
ALWAYS = 4
# Weight of the newest job in the running mean of job durations.
_LAST = 0.2


class Worker:
    """Runs jobs one at a time, in the order in which they become ready. It is used from one event loop.

    One at a time, because a single search uses all cores; more if other machines compute. A long job gives way to
    others.

    queue: how many jobs may wait behind the running ones. seconds: the longest expected wait; up to ALWAYS may wait
    longer. at_once: how many may run. turns, slow: those of computing, also for what is no search, and of sketches that
    take long.
    """

    def __init__(
        self,
        queue: int,
        waited: Callable[[float], None] = lambda seconds: None,
        *,
        seconds: float = math.inf,
        at_once: int = 1,
    ) -> None:
        """waited: called with the seconds that each job waited before it began."""
        self.queue, self.seconds, self.at_once = queue, seconds, at_once
        self.turns = Turns(at_once)
        self._held = Counter[str]()
        self._waited = waited
        self._mean_seconds = 0.0
        self._preparing, self._new = Turns(*PREPARING), Turns(*NEW)
        self.slow, self._clip = Turns(*SLOW), Turns(*CLIP)
        self._was_slow: LRUCache[str, bool] = LRUCache(_CLIENTS)

    @property
    def held(self) -> int:
        """How many jobs run, wait or are being prepared."""
        return self._held.total()

    def check_room(self, client: str) -> None:
        """Raises QueueFull if too many jobs wait, or another one of this client would wait too long."""
        own, room = self._held[client], self.queue + self.at_once
        before = self.turns.before(client, own)
        expected = before * self._mean_seconds / self.at_once
        waits_long = before >= ALWAYS + self.at_once and expected > self.seconds
        if self.held >= (room if own else _BEYOND * room) or waits_long:
            raise QueueFull(max(1, math.ceil(expected)))

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Holds a place in the queue while the block runs the steps of a job. Raises QueueFull as ``check_room``."""
        self.check_room(client)
        self._held[client] += 1
        try:
            yield
        finally:
            self._held -= Counter([client])

    async def prepare(self, client: str, step: Callable[..., T]) -> T:
        """Runs a step that may take long, and delays no other client's job.

        ``step`` is called with ``quick=True``, and may raise SlowImage; then it is called with ``quick=False``, after
        earlier slow ones, and so are the client's next ones until one is not slow. Raises QueueFull if too many of
        these wait.
        """
        if not (slow := self._was_slow.get(client)):
            # The first ones of clients wait for each other: nobody knows whether they are slow.
            lane = self._new if slow is None else self._preparing
            try:
                async with lane.turn(client):
                    if not self._was_slow.get(client):
                        result = await run_sync(partial(step, quick=True))
                        self._was_slow[client] = False
                        return result
            except SlowImage:
                self._was_slow[client] = True
        try:
            async with self.slow.turn(client):
                begun = time.monotonic()
                result = await run_sync(partial(step, quick=False))
        except QueueFull:
            raise QueueFull(_SLOW_RETRY) from None
        self._was_slow[client] = time.monotonic() - begun >= _ORDINARY
        return result

    async def ask_clip(self, client: str, step: Callable[..., T], *given: Any) -> T:
        """Runs a step of CLIP, which delays only other jobs with CLIP."""
        async with self._clip.turn(client):
            return await run_sync(step, *given)

    async def compute(self, client: str, step: Callable[..., T], *given: Any) -> T:
        """Runs the last step of a client's job in its turn. An error affects no other job."""
        arrived, job = time.monotonic(), Computation(self.turns, client)
        async with self.turns.turn(client):
            self._waited(time.monotonic() - arrived)
            try:
                return await job.run(step, *given)
            finally:
                self._mean_seconds += _LAST * (job.seconds - self._mean_seconds)

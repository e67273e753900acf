"""Runs searches in threads, with a bounded queue, beside threads that open sketches and run CLIP."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from sketch_search.model.errors import SlowImage
from sketch_search.service.errors import QueueFull
from sketch_search.service.turns import Computation, Turns

T = TypeVar("T")

# Sketches that are opened at the same time: a second one need not wait for one that takes seconds.
PREPARED_AT_ONCE = 2
# Slow sketches share one extra thread, so they delay only each other.
SLOW_AT_ONCE = 1
# The most slow sketches that are being prepared or waiting. More would fill the queue, and wait longer than clients do.
MAX_SLOW = 4
# Seconds within which one of them is usually done.
_SLOW_RETRY = 10
# This many jobs may wait for any time, or a slow machine would refuse almost all clients.
ALWAYS = 4
# Weight of the newest job in the running mean of job durations.
_LAST = 0.2


class Worker:
    """Runs jobs one at a time, in the order in which they become ready. It is used from one event loop.

    One at a time, because a single search uses all cores; more if other machines compute. A long job gives way to
    others.

    queue: how many jobs may wait behind the running ones. seconds: the longest expected wait; up to ALWAYS may wait
    longer. at_once: how many may run. held: how many run, wait or are being prepared. turns: those of computing, also
    for what is no search.
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
        self.held = 0
        self.turns = Turns(at_once)
        self._waited = waited
        self._mean_seconds = 0.0
        self._preparing, self._slow = CapacityLimiter(PREPARED_AT_ONCE), CapacityLimiter(SLOW_AT_ONCE)
        # CLIP computes one thing at a time.
        self._asking_clip = CapacityLimiter(1)

    def check_room(self) -> None:
        """Raises QueueFull if too many jobs wait, or another would wait too long."""
        expected = self.held * self._mean_seconds / self.at_once
        waits_long = self.held >= ALWAYS + self.at_once and expected > self.seconds
        if self.held >= self.queue + self.at_once or waits_long:
            raise QueueFull(max(1, math.ceil(expected)))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place in the queue while the block runs the steps of a job. Raises QueueFull as ``check_room``."""
        self.check_room()
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    async def prepare(self, step: Callable[..., T]) -> T:
        """Runs a step that may take long, and delays no other job.

        ``step`` is called with ``quick=True``, and may raise SlowImage; then it is called with ``quick=False``, after
        earlier slow ones. Raises QueueFull if too many of these wait.
        """
        try:
            return await run_sync(partial(step, quick=True), limiter=self._preparing)
        except SlowImage as error:
            slow = self._slow.statistics()
            if slow.borrowed_tokens + slow.tasks_waiting >= MAX_SLOW:
                raise QueueFull(_SLOW_RETRY) from error
        return await run_sync(partial(step, quick=False), limiter=self._slow)

    async def ask_clip(self, step: Callable[..., T], *given: Any) -> T:
        """Runs a step of CLIP, which delays only other jobs with CLIP."""
        return await run_sync(step, *given, limiter=self._asking_clip)

    async def compute(self, client: str, step: Callable[..., T], *given: Any) -> T:
        """Runs the last step of a client's job in its turn. An error affects no other job."""
        arrived, job = time.monotonic(), Computation(self.turns, client)
        async with self.turns.turn(client):
            self._waited(time.monotonic() - arrived)
            try:
                return await job.run(step, *given)
            finally:
                self._mean_seconds += _LAST * (job.seconds - self._mean_seconds)

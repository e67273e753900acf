"""Runs searches in threads, with a bounded queue, beside threads that open sketches and run CLIP."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter
from anyio.to_thread import run_sync

from sketch_search.model.errors import SlowImage
from sketch_search.service.errors import ClientGone, QueueFull

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
    """Runs jobs one after another, in the order in which they become ready. It is used from one event loop.

    One at a time, because a single search uses all cores. More may run if other machines compute.

    Attributes:
        queue: how many jobs may wait behind the running ones.
        seconds: the longest expected wait of a job; up to ALWAYS may wait longer.
        at_once: how many may run at the same time.
        held: how many jobs are running, waiting or being prepared.
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
        self._waited = waited
        self._mean_seconds = 0.0
        self._turns = CapacityLimiter(at_once)
        self._preparing, self._slow = CapacityLimiter(PREPARED_AT_ONCE), CapacityLimiter(SLOW_AT_ONCE)
        # CLIP computes one thing at a time.
        self._asking_clip = CapacityLimiter(1)

    def check_room(self) -> None:
        """Raises QueueFull if too many jobs wait, or another would wait too long."""
        expected = self.held * self._mean_seconds / self.at_once
        waits_long = self.held >= ALWAYS + self.at_once and expected > self.seconds
        if self.held >= self.queue + self.at_once or waits_long:
            raise QueueFull(max(1, math.ceil(expected)))

    @asynccontextmanager
    async def place(self, hung_up: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Holds a place in the queue while the block runs the steps of a job, which are the methods below.

        When ``hung_up`` ends, the client has disconnected, and a job whose last step has not begun leaves the queue.

        Raises QueueFull as ``check_room`` does; ClientGone if ``hung_up`` ended first.
        """
        listening = asyncio.create_task(hung_up)
        try:
            self.check_room()
            self.held += 1
            try:
                with CancelScope() as scope:
                    listening.add_done_callback(lambda ended: None if ended.cancelled() else scope.cancel())
                    yield
            finally:
                self.held -= 1
            if scope.cancel_called:
                raise ClientGone("The client disconnected.")
        finally:
            listening.cancel()

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

    async def compute(self, step: Callable[..., T], *given: Any) -> T:
        """Runs the last step in its turn. An error affects no other job."""
        arrived = time.monotonic()
        async with self._turns:
            started = time.monotonic()
            self._waited(started - arrived)
            try:
                # A thread cannot be stopped: the turn is over only when the job is.
                return await run_sync(step, *given)
            finally:
                self._mean_seconds += _LAST * (time.monotonic() - started - self._mean_seconds)

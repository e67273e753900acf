"""Runs searches in threads, with a bounded queue, beside threads that open sketches and run CLIP."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter
from anyio.to_thread import run_sync

from model.errors import SlowImage
from service.errors import ClientGone, QueueFull

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
        """Raises QueueFull if ``run`` would."""
        expected = self.held * self._mean_seconds / self.at_once
        waits_long = self.held >= ALWAYS + self.at_once and expected > self.seconds
        if self.held >= self.queue + self.at_once or waits_long:
            raise QueueFull(max(1, math.ceil(expected)))

    async def run(
        self,
        prepare: Callable[[bool], Callable[..., T]],
        hung_up: Coroutine[Any, Any, None],
        ask_clip: Callable[[], object] | None = None,
    ) -> T:
        """Runs the job that ``prepare`` returns, and returns its result. An error in either affects no other job.

        Preparing may take long but delays no other job. ``prepare`` is called with True, and may raise SlowImage; then
        it is called with False, after earlier slow ones. The job gets the result of ``ask_clip``, which delays
        only other jobs with CLIP. When ``hung_up`` ends, the client has disconnected, and a job that has not begun
        leaves the queue.

        Raises QueueFull if too many wait, or it would wait too long; ClientGone if ``hung_up`` ended first.
        """
        listening = asyncio.create_task(hung_up)
        try:
            self.check_room()
            self.held += 1
            try:
                with CancelScope() as scope:
                    listening.add_done_callback(lambda ended: None if ended.cancelled() else scope.cancel())
                    result = await self._in_turn(prepare, ask_clip)
            finally:
                self.held -= 1
            if scope.cancel_called:
                raise ClientGone("The client disconnected.")
            return result
        finally:
            listening.cancel()

    async def _prepared(self, prepare: Callable[[bool], Callable[..., T]]) -> Callable[..., T]:
        try:
            return await run_sync(prepare, True, limiter=self._preparing)
        except SlowImage as error:
            slow = self._slow.statistics()
            if slow.borrowed_tokens + slow.tasks_waiting >= MAX_SLOW:
                raise QueueFull(_SLOW_RETRY) from error
        return await run_sync(prepare, False, limiter=self._slow)

    async def _in_turn(self, prepare: Callable[[bool], Callable[..., T]], ask_clip: Callable[[], object] | None) -> T:
        job = await self._prepared(prepare)
        told = () if ask_clip is None else (await run_sync(ask_clip, limiter=self._asking_clip),)
        arrived = time.monotonic()
        async with self._turns:
            started = time.monotonic()
            self._waited(started - arrived)
            try:
                # A thread cannot be stopped: the turn is over only when the job is.
                return await run_sync(job, *told)
            finally:
                self._mean_seconds += _LAST * (time.monotonic() - started - self._mean_seconds)

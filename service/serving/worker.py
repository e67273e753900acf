"""Runs searches in a thread of their own, with a bounded queue, beside threads that open sketches and read photos."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from model.errors import SlowImage
from service.errors import ClientGone, QueueFull

T = TypeVar("T")

# Threads that open sketches: a second sketch need not wait for one that takes seconds.
PREPARED_AT_ONCE = 2
# Slow sketches share one extra thread, so they delay only each other.
SLOW_AT_ONCE = 1
# Slow sketches that are prepared or wait for it. More would fill the queue, and wait longer than clients do.
MAX_SLOW = 4
# Seconds after which one of them is likely to be done.
_SLOW_RETRY = 10
# This many jobs may wait for any time, or a slow machine would refuse almost everybody.
ALWAYS = 4
# Weight of the newest job in the running mean of job durations.
_LAST = 0.2


@dataclass(frozen=True)
class Unready(Generic[T]):
    """A job whose text CLIP has still to read, which may take seconds; ``make`` has it read, and gives the job."""

    make: Callable[[], Callable[[], T]]


class Worker:
    """Runs jobs one after another in a thread, in the order in which they are ready. It is used from one event loop.

    One thread, because one search already uses all cores. There may be more if other machines compute.

    Attributes:
        queue: how many jobs may wait behind those that run.
        seconds: how long a job may be expected to wait; up to ALWAYS may wait longer.
        at_once: how many may run at the same time.
        held: how many jobs run, wait or are prepared.
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
        self._executor = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="search")
        self._preparing = ThreadPoolExecutor(PREPARED_AT_ONCE, thread_name_prefix="sketch")
        self._preparing_slow = ThreadPoolExecutor(SLOW_AT_ONCE, thread_name_prefix="slow-sketch")
        # One thread, because CLIP computes one thing at a time. Other searches do not wait for it.
        self._asking_clip = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clip")
        self._turn = asyncio.Semaphore(at_once)
        self.queue, self.seconds, self.at_once = queue, seconds, at_once
        self.held = self._slow = 0
        self._waited = waited
        self._mean_seconds = 0.0

    def check_room(self) -> None:
        """Raises QueueFull if ``run`` would."""
        expected = self.held * self._mean_seconds / self.at_once
        waits_long = self.held >= ALWAYS + self.at_once and expected > self.seconds
        if self.held >= self.queue + self.at_once or waits_long:
            raise QueueFull(max(1, math.ceil(expected)))

    async def run(
        self, prepare: Callable[[bool], Callable[[], T] | Unready[T]], hung_up: Coroutine[Any, Any, None]
    ) -> T:
        """Runs the job that ``prepare`` gives, and returns its result. An error of either disturbs no other job.

        Preparing may take long and delays no other job. ``prepare`` is called with True, and may raise SlowImage; then
        it is called with False, after the slow ones before it. When ``hung_up`` ends, nobody waits for the result any
        more: a job that has not begun leaves the queue.

        Raises QueueFull if too many wait, or it would wait too long; ClientGone if ``hung_up`` ended first.
        """
        listening = asyncio.create_task(hung_up)
        try:
            self.check_room()
            self.held += 1
            running = asyncio.create_task(self._in_turn(prepare))
            running.add_done_callback(self._leave)
            try:
                await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    raise ClientGone("Whoever asked has hung up.")
                return running.result()
            finally:
                # A job that has begun keeps its turn until its thread is done with it (see _in_turn). What it uses is
                # lent to whoever asked, who stays as long.
                running.cancel()
                await asyncio.wait({running})
        finally:
            listening.cancel()

    async def _prepared(self, prepare: Callable[[bool], Callable[[], T] | Unready[T]]) -> Callable[[], T]:
        loop = asyncio.get_running_loop()
        try:
            prepared = await loop.run_in_executor(self._preparing, prepare, True)
        except SlowImage as error:
            if self._slow >= MAX_SLOW:
                raise QueueFull(_SLOW_RETRY) from error
            self._slow += 1
            try:
                prepared = await loop.run_in_executor(self._preparing_slow, prepare, False)
            finally:
                self._slow -= 1
        if isinstance(prepared, Unready):
            return await loop.run_in_executor(self._asking_clip, prepared.make)
        return prepared

    async def _in_turn(self, prepare: Callable[[bool], Callable[[], T] | Unready[T]]) -> T:
        job = await self._prepared(prepare)
        arrived = time.monotonic()
        async with self._turn:
            started = time.monotonic()
            self._waited(started - arrived)
            begun = asyncio.get_running_loop().run_in_executor(self._executor, job)
            try:
                return await asyncio.shield(begun)
            except asyncio.CancelledError:
                # A thread cannot be stopped: the turn is over only when the job is.
                await asyncio.wait({begun})
                raise
            finally:
                self._mean_seconds += _LAST * (time.monotonic() - started - self._mean_seconds)

    def _leave(self, _: asyncio.Task[Any]) -> None:
        self.held -= 1

    def close(self) -> None:
        """Waits for the running job and for those that are prepared, and starts no other."""
        for executor in (self._preparing, self._preparing_slow, self._asking_clip, self._executor):
            executor.shutdown(wait=True, cancel_futures=True)

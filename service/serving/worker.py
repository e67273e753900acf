"""The threads that search, mostly one, those that open sketches for it, and the bounded queue in front of both.

Beside them, threads that make what several clients may wait for, such as thumbnails.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
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
# The most thumbnails and originals that are read at a time, or wait for it: a page of results asks for some dozens.
MAX_MADE = 256


@dataclass(frozen=True)
class Unready(Generic[T]):
    """A job that is prepared but for CLIP's towers, which may take seconds. make: asks them, and gives the job."""

    make: Callable[[], Callable[[], T]]


class Worker:
    """Runs jobs one after another in a thread of its own, in the order in which they are ready.

    One thread, because PyTorch already spreads one search over the cores: two at once would only slow each other. There
    may be more where other machines compute, and jobs wait for them. To be used from one event loop.

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
        """``waited``: called with the seconds that each job waited before it began."""
        self._executor = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="search")
        self._preparing = ThreadPoolExecutor(PREPARED_AT_ONCE, thread_name_prefix="sketch")
        self._preparing_slow = ThreadPoolExecutor(SLOW_AT_ONCE, thread_name_prefix="slow-sketch")
        # One, because CLIP computes one thing at a time. Whoever does not need it does not wait for it.
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

    async def run(self, job: Callable[[], T], hung_up: Coroutine[Any, Any, None]) -> T:
        """Runs a job that needs no preparation; see ``run_prepared``."""

        async def ready() -> Callable[[], T]:
            return job

        return await self._run(ready, hung_up)

    async def run_prepared(
        self, prepare: Callable[[bool], Callable[[], T] | Unready[T]], hung_up: Coroutine[Any, Any, None]
    ) -> T:
        """Runs the job that ``prepare`` gives, and returns its result. An error of either disturbs no other job.

        Preparing needs no turn, so it may take long and holds no running or waiting job up. ``prepare`` is called with
        True and may raise SlowImage then; it is called with False after that, when all that were slow before are done.

        ``hung_up`` ends when nobody waits for the result any more: a job that has not begun then leaves the queue.

        Raises:
            QueueFull: too many wait already, or too many slow ones, or it would wait too long.
            ClientGone: ``hung_up`` ended first.
        """

        async def ready() -> Callable[[], T]:
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

        return await self._run(ready, hung_up)

    async def _run(self, ready: Callable[[], Awaitable[Callable[[], T]]], hung_up: Coroutine[Any, Any, None]) -> T:
        listening = asyncio.create_task(hung_up)
        try:
            self.check_room()
            self.held += 1
            running = asyncio.create_task(self._in_turn(ready))
            running.add_done_callback(self._leave)
            try:
                await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    raise ClientGone("Whoever asked has hung up.")
                return running.result()
            finally:
                # A job that has begun keeps its turn until its thread is done with it (see _in_turn).
                running.cancel()
                # The traceback of an error refers to this frame. This name would close a circle; without it, all that
                # the job used is freed at once.
                del running
        finally:
            listening.cancel()

    async def _in_turn(self, ready: Callable[[], Awaitable[Callable[[], T]]]) -> T:
        job = await ready()
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
                del begun  # for the same reason as ``running`` above

    def _leave(self, _: asyncio.Task[Any]) -> None:
        self.held -= 1

    def close(self) -> None:
        """Waits for the running job and for those that are prepared, and starts no other."""
        self._preparing.shutdown(wait=True, cancel_futures=True)
        self._preparing_slow.shutdown(wait=True, cancel_futures=True)
        self._asking_clip.shutdown(wait=True, cancel_futures=True)
        self._executor.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Making(Generic[T]):
    """A thing that is made, or waits for that. clients: how many wait for it."""

    begun: Future[T]
    made: asyncio.Future[T]
    clients: int = 0


class Shared(Generic[T]):
    """Makes each thing once, in a few threads, however many clients wait for it.

    What nobody waits for any more is not begun. To be used from one event loop.
    """

    def __init__(self, at_once: int) -> None:
        """``at_once``: how many things may be made at the same time."""
        self._executor = ThreadPoolExecutor(at_once, thread_name_prefix="shared")
        self._making: dict[Hashable, _Making[T]] = {}

    async def get(self, key: Hashable, make: Callable[[], T], hung_up: Coroutine[Any, Any, None]) -> T:
        """Returns what ``make`` gives, or what is being made under the same ``key``. Raises what that raises.

        ``hung_up`` ends when this client is gone.

        Raises:
            QueueFull: too many things wait already.
            ClientGone: ``hung_up`` ended first.
        """
        listening = asyncio.create_task(hung_up)
        try:
            thing = self._making.get(key) or self._begin(key, make)
            thing.clients += 1
            try:
                either: set[asyncio.Future[Any]] = {thing.made, listening}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not thing.made.done():
                    raise ClientGone("Whoever asked has hung up.")
                return thing.made.result()
            finally:
                thing.clients -= 1
                if not thing.clients and thing.begun.cancel():
                    del self._making[key]
        finally:
            listening.cancel()

    def _begin(self, key: Hashable, make: Callable[[], T]) -> _Making[T]:
        if len(self._making) >= MAX_MADE:
            raise QueueFull(1)
        begun = self._executor.submit(make)
        made = asyncio.wrap_future(begun)
        self._making[key] = thing = _Making(begun, made)

        def over(_: asyncio.Future[T]) -> None:
            if not made.cancelled():
                made.exception()  # or asyncio would complain where nobody waits any more
                del self._making[key]

        made.add_done_callback(over)
        return thing

    def close(self) -> None:
        """Waits for what is being made, and begins nothing more."""
        self._executor.shutdown(wait=True, cancel_futures=True)

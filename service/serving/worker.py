"""Runs searches in threads, beside threads that open sketches and run CLIP; clients take turns in bounded queues."""

import asyncio
import concurrent.futures
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from anyio import CancelScope, from_thread, get_current_task
from anyio.to_thread import run_sync
from cachetools import LRUCache

from sketch_search.model.errors import SlowImage
from sketch_search.model.limits import at_pauses
from sketch_search.service.errors import ClientGone, QueueFull

T = TypeVar("T")


class Lane(NamedTuple):
    """How many jobs of a kind may run, how many of one client, and how many may wait, half of them of one client."""

    at_once: int
    each: int
    waiting: int


# All that runs beside searches: opening sketches, those of new clients, those that take long, and CLIP; reading the
# index; reading photos for each of three purposes; and what builds, removes and lists folders. A page asks for dozens
# of thumbnails, and others need connections. Decoding a large photo takes a few hundred MiB.
PREPARING, NEW = Lane(2, 1, 1 << 16), Lane(1, 1, 1 << 16)
SLOW, CLIP = Lane(1, 1, 6), Lane(1, 1, 1 << 16)
LOOKUPS, UPKEEP = Lane(4, 3, 512), Lane(2, 1, 64)
THUMBNAILS, ORIGINALS, EXPLANATIONS = Lane(3, 2, 256), Lane(2, 1, 64), Lane(2, 1, 8)
# The client with the server's token, wherever it is: others keep it from nothing.
OWNER = "owner"
# Seconds of computing, those of an ordinary search, after which a job gives way to waiting ones.
GIVE_WAY_SECONDS = 0.1
# Seconds after which a client that met a full queue, or whose sketch was dropped for others, may try again.
RETRY_SECONDS = 1


class Turns:
    """Lets ``at_once`` jobs run at a time, while others wait. It is used from one event loop.

    Clients take turns, however many jobs each of them has. If too many wait, one of which none does is let in, and the
    newest job of the client with most is dropped. The owner's jobs run beside those of others.

    ``waiting`` counts the jobs that wait, for any thread to read.
    """

    def __init__(self, at_once: int, each: int | None = None, waiting: float = math.inf) -> None:
        """Takes the limits of a ``Lane``; each: None for all."""
        self._at_once, self._each, self._most = at_once, each or at_once, waiting
        self.waiting = 0
        self._running = Counter[str]()
        # The client whose turn is next is the first.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def running(self) -> int:
        return self._running.total()

    def before(self, client: str, jobs: int) -> int:
        """Counts the jobs that come before the next one of a client that has ``jobs`` already."""
        if client == OWNER:
            return jobs
        others = {*self._running, *self._waiting} - {client}
        return jobs + sum(min(jobs + 1, self._running[other] + len(self._waiting.get(other, ()))) for other in others)

    @asynccontextmanager
    async def turn(self, client: str = "") -> AsyncIterator[None]:
        """Runs the block in its turn. Raises QueueFull if it is dropped. Cancelled jobs leave the queue at once."""
        await self._begin(client)
        try:
            yield
        finally:
            self._end(client)

    async def compute(self, client: str, step: Callable[[], T]) -> T:
        async with self.turn(client):
            return await Computation(self, client).run(step)

    async def give_way(self, client: str) -> None:
        """Ends the turn of a running job, and waits for its next one."""
        with CancelScope(shield=True):
            self._end(client)
            await self._begin(client)

    def others_wait(self, client: str) -> bool:
        return any(other != client for other in self._waiting)

    def _may_run(self, client: str) -> bool:
        others = self.running - self._running[OWNER]
        return self._running[client] < self._each and (client == OWNER or others < self._at_once)

    def _make_room(self, client: str) -> None:
        """Raises QueueFull if another job of this client may not wait."""
        jobs = len(self._waiting.get(client, ()))
        if jobs >= self._most / 2:
            raise QueueFull(RETRY_SECONDS)
        if self.waiting < self._most or client == OWNER:
            return
        greedy = max(self._waiting, key=lambda other: len(self._waiting[other]))
        if jobs or len(self._waiting[greedy]) < 2:
            raise QueueFull(RETRY_SECONDS)
        self.waiting -= 1
        if not (dropped := self._waiting[greedy].pop()).done():
            dropped.set_exception(QueueFull(RETRY_SECONDS))

    async def _begin(self, client: str) -> None:
        if self._may_run(client):
            self._running[client] += 1
            return
        self._make_room(client)
        self.waiting += 1
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                if granted.exception() is None:
                    self._end(client)
            elif granted in (jobs := self._waiting.get(client, deque())):
                jobs.remove(granted)
                self.waiting -= 1
                if not jobs:
                    del self._waiting[client]
            raise

    def _end(self, client: str) -> None:
        self._running -= Counter([client])
        while (following := next(filter(self._may_run, self._waiting), None)) is not None:
            jobs = self._waiting.pop(following)
            granted = jobs.popleft()
            self.waiting -= 1
            if jobs:
                self._waiting[following] = jobs
            if not granted.done():
                self._running[following] += 1
                granted.set_result(None)


class Computation:
    """A job that computes in a thread, in its turn; ``seconds`` is the time that it has computed for."""

    def __init__(self, turns: Turns, client: str) -> None:
        self.seconds = 0.0
        self._turns, self._client, self._begun = turns, client, 0.0
        # A server that stops cancels tasks, of which no scope knows.
        self._cancelled = False

    async def run(self, step: Callable[..., T], *arguments: Any) -> T:
        """Returns the result of the job. A thread cannot be stopped, so that cancelling ends it where it gives way."""
        try:
            return await run_sync(self._run, step, *arguments)
        except asyncio.CancelledError:
            self._cancelled = True
            raise

    def _run(self, step: Callable[..., T], *arguments: Any) -> T:
        at_pauses.set(self.give_way)
        self._begun = time.monotonic()
        try:
            return step(*arguments)
        finally:
            self._pause()

    def give_way(self) -> None:
        """Lets waiting jobs compute first if this one has computed for long. Raises CancelledError."""
        from_thread.check_cancelled()
        if self._cancelled:
            raise asyncio.CancelledError
        if time.monotonic() - self._begun >= GIVE_WAY_SECONDS and self._turns.waiting:
            self._pause()
            from_thread.run(self._turns.give_way, self._client)
            self._begun = time.monotonic()

    def _pause(self) -> None:
        self.seconds += time.monotonic() - self._begun


def from_this_thread(coroutine: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Runs a coroutine in the event loop that started this thread. Raises CancelledError if that no longer waits."""
    from_thread.check_cancelled()
    try:
        return from_thread.run(_unless_cancelled, coroutine, *arguments)
    except (asyncio.CancelledError, concurrent.futures.CancelledError):
        # This raises anyio's own error, the only one that the cancelled scope catches.
        from_thread.check_cancelled()
        raise asyncio.CancelledError from None


async def _unless_cancelled(coroutine: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    # A scope cancels only the tasks that it has at that moment. One that starts later would loop in anyio for ever,
    # waiting to be cancelled, while it holds its turn.
    if get_current_task().has_pending_cancellation():
        raise asyncio.CancelledError
    return await coroutine(*arguments)


@asynccontextmanager
async def cancelled_by(gone: Coroutine[Any, Any, None]) -> AsyncIterator[CancelScope]:
    """Cancels the block, whose scope it gives, when ``gone`` ends, and raises ClientGone."""
    listening = asyncio.create_task(gone)
    try:
        with CancelScope() as scope:
            listening.add_done_callback(lambda ended: None if ended.cancelled() else scope.cancel())
            yield scope
    finally:
        listening.cancel()
    if scope.cancel_called:
        raise ClientGone("The client disconnected.")


# Seconds within which a slow sketch is usually prepared, and those of an ordinary one.
_SLOW_RETRY, _ORDINARY = 10, 1
# Clients of which it is known whether the latest sketch was slow.
_CLIENTS = 1000
# A client with no job waiting is let in until so many times the queue's length is waiting.
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
    longer. at_once: how many may run. turns, slow, clip: those of computing, also for what is no search, of sketches
    that take long, and of reading texts by CLIP, which delays only others that do.
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
        self._held = list[tuple[str, CancelScope]]()
        self._waited = waited
        self._mean_seconds = 0.0
        self._preparing, self._new, self._again = Turns(*PREPARING), Turns(*NEW), Turns(1)
        self.slow, self.clip = Turns(*SLOW), Turns(*CLIP)
        self._was_slow: LRUCache[str, bool] = LRUCache(_CLIENTS)

    @property
    def held(self) -> int:
        return len(self._clients())

    def _clients(self) -> list[str]:
        """Lists the client of each job. One that has gone has none, even if a thread still computes for it."""
        return [client for client, scope in self._held if not scope.cancel_called]

    def check_room(self, client: str) -> None:
        """Raises QueueFull if too many jobs wait, or another one of this client would wait too long."""
        jobs, room = self._clients().count(client), self.queue + self.at_once
        before = self.turns.before(client, jobs)
        held = jobs if client == OWNER else self.held
        expected = before * self._mean_seconds / self.at_once
        waits_long = before >= ALWAYS + self.at_once and expected > self.seconds
        if held >= (room if jobs else _BEYOND * room) or waits_long:
            raise QueueFull(max(1, math.ceil(expected)))

    @contextmanager
    def place(self, client: str, scope: CancelScope) -> Iterator[None]:
        """Holds a place in the queue while the block runs the steps of a job. Raises QueueFull as ``check_room``.

        scope: cancelled once the client has gone.
        """
        self.check_room(client)
        place = client, scope
        self._held.append(place)
        try:
            yield
        finally:
            self._held.remove(place)

    async def prepare(self, client: str, step: Callable[..., T]) -> T:
        """Runs a step that may take long, and delays no other client's job.

        ``step`` is called with ``quick=True``, and may raise SlowImage; then it is called with ``quick=False``, after
        earlier slow ones, and while others wait, so are the client's next ones until one is not slow. Raises QueueFull
        if too many of these wait.
        """
        with suppress(SlowImage):
            return await self._prepare_quickly(client, step)
        try:
            async with self.slow.turn(client):
                begun = time.monotonic()
                result = await run_sync(partial(step, quick=False))
        except QueueFull:
            raise QueueFull(_SLOW_RETRY) from None
        self._was_slow[client] = time.monotonic() - begun >= _ORDINARY
        return result

    async def _prepare_quickly(self, client: str, step: Callable[..., T]) -> T:
        """Raises SlowImage if it takes long, or if others wait and an earlier one of this client took long."""
        # The first ones of clients wait for each other: nobody knows whether they are slow.
        if client not in self._was_slow:
            async with self._new.turn(client):
                if client not in self._was_slow:
                    return await self._try(client, step)
        if not self._was_slow.get(client):
            async with self._preparing.turn(client):
                if not self._was_slow.get(client):
                    return await self._try(client, step)
        # Those after a slow one leave a place to all others.
        async with self._again.turn(client):
            if self._again.others_wait(client) or self._preparing.others_wait(client):
                raise SlowImage("those of others come first")
            async with self._preparing.turn(client):
                return await self._try(client, step)

    async def _try(self, client: str, step: Callable[..., T]) -> T:
        try:
            result = await run_sync(partial(step, quick=True))
        except SlowImage:
            self._was_slow[client] = True
            raise
        self._was_slow[client] = False
        return result

    async def compute(self, client: str, step: Callable[..., T], *arguments: Any) -> T:
        """Runs the last step of a client's job in its turn. An error affects no other job."""
        arrived, job = time.monotonic(), Computation(self.turns, client)
        async with self.turns.turn(client):
            self._waited(time.monotonic() - arrived)
            try:
                return await job.run(step, *arguments)
            finally:
                self._mean_seconds += _LAST * (job.seconds - self._mean_seconds)

"""Jobs for the one thread that searches, what else keeps a server busy, and waiting until it is or no longer is."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from sketch_search.service.errors import QueueFull
from sketch_search.service.serving.worker import Worker, cancelled_by
from tests.programs import PATIENCE, wait_for, wait_until
from tests.service.served import SEARCH, Served, connect

T = TypeVar("T")
CLIENT = "127.0.0.1"


@contextmanager
def occupied(server: Served) -> Iterator[None]:
    """While the block runs, so does a job in the one thread that searches."""
    gate = Gate()
    waiting = run(server.context.worker, lambda quick: gate, never())
    running: Future[str] = asyncio.run_coroutine_threadsafe(waiting, server.loop)
    wait_until(lambda: gate.begun.is_set() or running.done(), "the job has not begun")
    if running.done():
        running.result()
    try:
        yield
    finally:
        gate.opened.set()
        running.result(PATIENCE)


@contextmanager
def begun_upload(server: Served, part: bytes = b"half") -> Iterator[socket.socket]:
    """While the block runs, an upload is on its way, and this much of it there; it breaks off then."""
    with connect(server) as connection:
        connection.sendall(SEARCH + b"Content-Length: %d\r\n\r\n" % (len(part) + 1) + part)
        yield connection


def wait_until_held(server: Served, bytes_held: int) -> None:
    """Until so many bytes of sketches are here that are on their way."""
    wait_until(lambda: server.context.uploads.held == bytes_held, f"{bytes_held} bytes are not held")


def wait_until_room_is(server: Served, there: bool) -> None:
    wait_until(lambda: has_room(server.context.worker) == there, "the queue stays as it is")


def has_room(worker: Worker) -> bool:
    try:
        worker.check_room(CLIENT)
    except QueueFull:
        return False
    return True


async def run(
    worker: Worker, prepare: Callable[[bool], Callable[[], T]], hung_up: Coroutine[Any, Any, None], client: str = CLIENT
) -> T:
    async with cancelled_by(hung_up) as there:
        with worker.place(client, there):
            return await worker.compute(client, await worker.prepare(client, prepare))


class Gate:
    """A job that says when it has begun and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        wait_for(self.opened, "the gate was not opened")
        return "through"


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def until(condition: threading.Event) -> None:
    await asyncio.to_thread(wait_for, condition, "it did not happen")

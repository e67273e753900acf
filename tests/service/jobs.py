"""Jobs for the one thread that searches, and clients that wait for them."""

from __future__ import annotations

import asyncio
import threading

from service.errors import QueueFull
from service.serving.worker import Worker


class Gate:
    """A job that says when it has begun and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.opened.wait(10)
        return "through"


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def at_once() -> None:
    return


async def until(condition: threading.Event) -> None:
    await asyncio.to_thread(condition.wait, 10)


async def room(worker: Worker) -> None:
    """Until one more job may wait."""
    async with asyncio.timeout(10):
        while True:
            try:
                return worker.check_room()
            except QueueFull:
                await asyncio.sleep(0)

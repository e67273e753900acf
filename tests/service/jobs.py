"""Jobs for the one thread that searches, and clients that wait for them."""

from __future__ import annotations

import asyncio
import threading

from service.errors import QueueFull
from service.serving.worker import Worker
from tests.patience import PATIENCE, wait_for


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


async def at_once() -> None:
    return


async def until(condition: threading.Event) -> None:
    await asyncio.to_thread(wait_for, condition, "it did not happen")


async def room(worker: Worker) -> None:
    """Until one more job may wait."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return worker.check_room()
            except QueueFull:
                await asyncio.sleep(0)

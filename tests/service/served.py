"""The service in a thread of the test, on a real port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from service.http.app import create_app
from service.http.routes import Context
from service.serving.connection import server_config
from service.settings import Settings
from tests.patience import PATIENCE, join, wait_for


@dataclass(frozen=True)
class Served:
    """A running server: where it is, the application, and the event loop it runs in."""

    url: str
    app: FastAPI
    loop: asyncio.AbstractEventLoop

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context


@contextmanager
def served(settings: Settings, app: FastAPI | None = None, **changes: object) -> Iterator[Served]:
    """Serve with uvicorn in a thread until the block ends, by the settings with these changes."""
    app = app or create_app(settings.model_copy(update=changes))
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    async def noticing(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                loops.append(asyncio.get_running_loop())
                started.set()

        await app(scope, receive, send_on)

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(noticing, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(started, "the server has not started")
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", app, loops[0])
    finally:
        server.should_exit = True
        join(thread)
        listener.close()


@contextmanager
def asked(settings: Settings, **changes: object) -> Iterator[httpx.Client]:
    """Serve by the settings with these changes, and connect to the server."""
    with (
        served(settings, None, **changes) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as connection,
    ):
        yield connection

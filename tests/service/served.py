"""The service in a thread of the test, on a real port."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.service.http.app import create_app
from sketch_search.service.http.context import TOKEN_HEADER, Context
from sketch_search.service.serving.connection import server_config
from sketch_search.service.settings import Settings
from tests.networks import tiny_checkpoint
from tests.patience import PATIENCE, join, wait_for
from tests.service.small_gallery import CLUSTERS


@dataclass(frozen=True)
class Served:
    url: str
    app: FastAPI
    loop: asyncio.AbstractEventLoop
    http: httpx.Client

    @property
    def context(self) -> Context:
        return self.app.state.context

    @property
    def page(self) -> str:
        """The address that the program opens in a browser."""
        return f"{self.url}/?token={self.app.state.token}"

    @property
    def token(self) -> dict[str, str]:
        return {TOKEN_HEADER: self.app.state.token}


@contextmanager
def served(settings: Settings, app: FastAPI | None = None, **changes: object) -> Iterator[Served]:
    """Serve with uvicorn in a thread until the block ends, by the settings with these changes."""
    settings = settings.model_copy(update=changes)
    with started(app or create_app(settings), settings) as server:
        looked = server.context.live.looked.wait()
        asyncio.run_coroutine_threadsafe(looked, server.loop).result(PATIENCE)
        yield server


@contextmanager
def started(app: FastAPI, settings: Settings) -> Iterator[Served]:
    """Serve in this way; the block begins before the server has opened what is searched."""
    loops: list[asyncio.AbstractEventLoop] = []
    begun = threading.Event()

    async def noticing(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                loops.append(asyncio.get_running_loop())
                begun.set()

        await app(scope, receive, send_on)

    listener, *others = listeners = [
        socket.create_server(("127.0.0.1", 0)) for _ in range(1 if settings.metrics_port is None else 2)
    ]
    if others:
        app.state.metrics_port = others[0].getsockname()[1]
    server = uvicorn.Server(server_config(noticing, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": listeners}, daemon=True)
    thread.start()
    try:
        wait_for(begun, "the server has not started")
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=PATIENCE) as http:
            yield Served(url, app, loops[0], http)
    finally:
        server.should_exit = True
        join(thread)
        for one in listeners:
            one.close()


@contextmanager
def asked(settings: Settings, **changes: object) -> Iterator[httpx.Client]:
    """A connection to a server by the settings with these changes."""
    with served(settings, None, **changes) as server:
        yield server.http


def wordy(
    settings: Settings, photos: Path, folder: Path, words: tuple[tuple[str, ...], ...], embedder: str = "ret"
) -> Settings:
    """Returns the settings to serve an index of these photos, which it makes in ``folder`` by this embedder."""
    weights = tiny_checkpoint(folder / "tiny.safetensors", words=words, diffusion=0.2)
    build(folder / "index", BuildRequest([photos], clusters=CLUSTERS, embedder=embedder), model.load(weights))
    return settings.model_copy(update={"index": folder / "index", "weights": weights})

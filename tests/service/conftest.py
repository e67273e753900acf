"""A small gallery, its index, and the service over it on a real port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.types import Message, Receive, Scope, Send

import model
from indexer import Index, build, open_index
from model import Matcher
from service.client import Client
from service.http.app import create_app
from service.http.routes import Context
from service.serving.connection import server_config
from service.settings import Settings
from tests.networks import tiny_checkpoint
from tests.pictures import SHAPES, drawing, encoded, photo

# Only the tests of the page need selenium.
if TYPE_CHECKING:
    from tests.browser import Browser

PHOTOS = 23
CLUSTERS = 5
MAX_UPLOAD = 500_000


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
def served(settings: Settings, app: FastAPI | None = None) -> Iterator[Served]:
    """Serve with uvicorn in a thread; the server is gone when the block ends."""
    app = app or create_app(settings)
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
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert started.wait(30)
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", app, loops[0])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def draw_photo(seed: int) -> Image.Image:
    """A small photo; every seed another one."""
    return photo(SHAPES[seed % len(SHAPES)], size=96, seed=seed)


def draw_sketch(seed: int = 0) -> Image.Image:
    """A small drawing; every seed another one."""
    return drawing(SHAPES[seed % len(SHAPES)], size=128, seed=seed)


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    """A browser on a desktop, for all tests of a module."""
    from tests.browser import DESKTOP, browser

    with browser(DESKTOP) as driver:
        yield driver


@pytest.fixture
def desk(opened: Browser) -> Browser:
    """The same, once it has forgotten the test before."""
    from tests.service.looking import forgetful

    return forgetful(opened)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def matcher(weights: Path) -> Matcher:
    return model.load(weights)


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PHOTOS different pictures in two folders; the first one is there three times."""
    root = tmp_path_factory.mktemp("gallery")
    (root / "größe").mkdir()
    for seed in range(PHOTOS):
        folder = root / "größe" if seed % 3 == 0 else root
        (folder / f"p{seed:02}.png").write_bytes(encoded(draw_photo(seed)))
    for copy in ("again.png", "once more.png"):
        (root / copy).write_bytes(encoded(draw_photo(0)))
    return root


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory, gallery: Path, matcher: Matcher) -> Path:
    path = tmp_path_factory.mktemp("index") / "index"
    build([gallery], path, matcher, clusters=CLUSTERS, embedder="ret")
    return path


@pytest.fixture(scope="session")
def index(index_path: Path, matcher: Matcher) -> Iterator[Index]:
    opened = open_index(index_path, matcher)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def settings(index_path: Path, weights: Path) -> Settings:
    return Settings(index=index_path, weights=weights, max_upload_bytes=MAX_UPLOAD, max_pixels=1_000_000, max_k=50)


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Served]:
    with served(settings) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as connection:
        yield connection


@pytest.fixture(scope="session")
def client(server: Served) -> Iterator[Client]:
    with Client(server.url) as connection:
        yield connection


@pytest.fixture(scope="session")
def sketch() -> bytes:
    return encoded(draw_sketch())

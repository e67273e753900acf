"""The service in a thread of the test, or as a program, on a real port, and what clients say to it."""

import asyncio
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.service.http.app import create_app
from sketch_search.service.http.context import TOKEN_HEADER, Context
from sketch_search.service.serving.connection import server_config
from sketch_search.service.settings import Settings
from tests.networks import tiny_checkpoint
from tests.programs import PATIENCE, join, started_python, wait_for
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


_LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
runpy.run_module("service", run_name="__main__", alter_sys=True)
"""


@contextmanager
def running(
    settings: Settings,
    log: Path,
    *arguments: str,
    files: int | None = None,
    output: IO[bytes] | None = None,
    **environment: str,
) -> Iterator[subprocess.Popen[str]]:
    """``python -m service`` on a free port, its log written to ``log``; ended, and waited for, with the block.

    Its output goes into a pipe, or where ``output`` says.
    """
    place = {"SKETCH_SEARCH_INDEX": str(settings.index), "SKETCH_SEARCH_PORT": "0"}
    if settings.weights:
        place["SKETCH_SEARCH_WEIGHTS"] = str(settings.weights)
    # A busy machine may take seconds for a search.
    variables = {**os.environ, **place, "SKETCH_SEARCH_QUEUE_SECONDS": str(PATIENCE), **environment}
    command = ("-m", "service", *arguments) if files is None else ("-c", _LIMITED.format(files=files))
    with (
        log.open("w") as errors,
        started_python(*command, environment=variables, errors=errors, output=output) as process,
    ):
        yield process


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = (re.search(r"http://[^\s/\"]+", line) for line in process.stdout)
    return next(address[0] for address in found if address is not None)


#: How the head of a search begins.
SEARCH = b"POST /search HTTP/1.1\r\nHost: localhost\r\n"


def without_timings(answer: httpx.Response | BaseModel | dict[str, Any]) -> dict[str, Any]:
    if isinstance(answer, httpx.Response):
        assert answer.status_code == 200, answer.text
    body = answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer
    body = dict(body.json() if isinstance(body, httpx.Response) else body)
    del body["timings_ms"]
    return body


def error(answer: httpx.Response, said: str = "") -> tuple[int, str]:
    """Status and code, once the error has been found to look as promised, and its sentence to have these words."""
    assert set(answer.json()) == {"error"}
    detail = answer.json()["error"]
    further = {"nearest"} if detail["code"] == "unknown_word" else set()
    assert set(detail) - further == {"code", "message", "request_id"}
    assert detail["message"]
    assert said in detail["message"]
    assert detail["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, detail["code"]


def check_is_stranger(http: httpx.Client, gallery: Path, **headers: str) -> None:
    """Checks that a client without the token sees photos, and has nothing done."""
    http.headers = httpx.Headers({**http.headers, **headers}, "latin-1")
    info = http.get("/info").json()
    nothing = {"build": False, "reveal": False, "needs_token": True}
    assert (info["ready"], info["allows"], info["build"]["running"]) == (True, nothing, False)
    assert "files" not in http.get("/photos", params={"id": 1}).json()["photos"][0]
    for path in (f"/build?folder={gallery}", "/photos/1/reveal"):
        assert error(http.post(path), "the address that the server printed when it started") == (403, "forbidden")


def metrics(http: httpx.Client, url: str = "/metrics") -> dict[str, float]:
    """Returns what a server counts, by name and labels as they are written."""
    answer = http.get(url)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def connect(server: Served, own: str = "127.0.0.1") -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port or 80), PATIENCE, (own, 0))


def rest(connection: socket.socket) -> bytes:
    """Returns all that comes until the server closes, however it does that."""
    received = bytearray()
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return bytes(received)


def plain_http(server: Served, request: bytes) -> bytes:
    with connect(server) as connection:
        connection.sendall(request)
        return rest(connection)

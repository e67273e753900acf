"""Sends requests for the tests of the HTTP API, and reads the answers."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel

from tests.patience import PATIENCE
from tests.service.served import Served

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


def connect(server: Served) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port or 80), timeout=PATIENCE)


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

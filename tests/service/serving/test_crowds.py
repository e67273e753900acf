import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.serving.connection import Connection
from service.serving.ports import MAX_CONNECTIONS, RESERVE, most_connections
from service.settings import Settings
from tests.patience import PATIENCE, wait_until
from tests.service.busy_server import occupied
from tests.service.served import Served, served
from tests.service.server_process import address, running
from tests.service.talk import connect, rest

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="has no limit of open files")


@pytest.fixture
def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with room for three connections, and none yet."""
    monkeypatch.setattr(Connection, "most", 3)
    with served(settings) as server:
        yield server


def answered(server: Served) -> int:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        return http.get("/healthz").status_code


def test_the_connection_that_has_been_idle_longest_makes_room(small: Served) -> None:
    with ExitStack() as opened:
        first, *others = [opened.enter_context(connect(small)) for _ in range(3)]
        assert answered(small) == 200
        assert rest(first) == b""
        for other in others:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert rest(other).startswith(b"HTTP/1.1 200 ")


def test_who_sends_a_request_slowly_makes_room_too(small: Served) -> None:
    with ExitStack() as opened:
        slow = [opened.enter_context(connect(small)) for _ in range(3)]
        for connection in slow:
            connection.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
        assert {answered(small) for _ in range(4)} == {200}


def test_those_that_are_being_answered_stay_and_a_new_one_is_refused(small: Served, sketch: bytes) -> None:
    search = b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
        sketch
    )
    with ExitStack() as opened:
        with occupied(small):
            busy = [opened.enter_context(connect(small)) for _ in range(3)]
            for connection in busy:
                connection.sendall(search + sketch)
            wait_until(lambda: small.context.worker.held == 4, "the searches do not wait")
            head, _, body = rest(opened.enter_context(connect(small))).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert json.loads(body)["error"]["code"] == "too_many_connections"
        for connection in busy:
            assert rest(connection).startswith(b"HTTP/1.1 200 ")
    assert answered(small) == 200


@on_posix
def test_a_crowd_of_idle_connections_keeps_nobody_out(settings: Settings, sketch: bytes, tmp_path: Path) -> None:
    import resource

    files, idle = 64, 80
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = idle + 200
    if mine[1] != resource.RLIM_INFINITY and mine[1] < wanted:
        pytest.skip("this machine allows too few open files")
    log = tmp_path / "log"
    with running(settings, log, files=files, SBIR_METRICS_PORT="0") as process, ExitStack() as opened:
        metrics, url = (urlsplit(address(process)) for _ in range(2))
        if mine[0] < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, mine[1]))
            opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, mine)
        for number in range(idle):
            place = metrics if number % 2 else url
            opened.enter_context(socket.create_connection((place.hostname, place.port or 80), timeout=PATIENCE))
        for path in ("/healthz", "/photos/1", "/thumbnails/1", "/info"):
            assert httpx.get(f"{url.geturl()}{path}", timeout=PATIENCE).status_code == 200
        assert httpx.post(f"{url.geturl()}/search", content=sketch, timeout=PATIENCE).status_code == 200
        assert httpx.get(metrics.geturl(), timeout=PATIENCE).status_code == 200
    lines = log.read_text().splitlines()
    assert [line for line in lines if "Traceback" in line or "out of system resource" in line] == []
    assert any("the one that keeps the server waiting longest" in line for line in lines)


@on_posix
@pytest.mark.parametrize(
    ("files", "most"),
    [(64, 64 - RESERVE), (1024, 1024 - RESERVE), (20, 8), (-1, MAX_CONNECTIONS), (10**6, MAX_CONNECTIONS)],
)
def test_connections_leave_files_for_everything_else(files: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY if files == -1 else files, files))
    assert most_connections() == most

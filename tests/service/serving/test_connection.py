import json
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPResponse

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from sketch_search.service.serving import connection as connection_module
from sketch_search.service.serving.connection import CHUNK_BYTES, FREE_CHUNKS, Connection, listening
from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, wait_until
from tests.service.busy_server import occupied, wait_until_room_is
from tests.service.served import SEARCH, Served, connect, plain_http, rest, served, started
from tests.service.small_gallery import MAX_UPLOAD

CLOSE = b"Connection: close\r\n"


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer.split(b" ", 2)[1])


def code(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    detail = json.loads(body)["error"]
    assert f"x-request-id: {detail['request_id']}".encode() in head.lower()
    return str(detail["code"])


def trickle(connection: socket.socket) -> bytes:
    """Send a byte now and then until the server has had enough. Returns what it has said."""
    said = bytearray()
    try:
        while True:
            connection.sendall(b"x")
            while select.select([connection], [], [], 0.01)[0]:
                piece = connection.recv(65536)
                if not piece:
                    return bytes(said)
                said += piece
    except ConnectionError:
        return bytes(said)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_seconds", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("begun", [b"", b"GET / HT", SEARCH])
def test_a_head_that_does_not_come_is_not_waited_for(server: Served, begun: bytes) -> None:
    assert plain_http(server, begun) == b""


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("begun", "said"),
    [
        (SEARCH + b"X-Slow: ", b""),
        (SEARCH + b"Content-Length: %d\r\n\r\n" % (MAX_UPLOAD + 1), b"HTTP/1.1 413 "),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 "),
    ],
)
def test_a_client_that_goes_on_sending_is_cut_off(server: Served, begun: bytes, said: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(begun)
        assert trickle(connection)[:13] == said


@pytest.mark.usefixtures("impatient")
def test_a_connection_is_kept_while_it_is_answered(server: Served, sketch: bytes) -> None:
    search = SEARCH + b"Content-Length: %d\r\n\r\n" % len(sketch) + sketch
    with connect(server) as used:
        with occupied(server):
            used.sendall(search)
            wait_until(lambda: server.context.worker.held == 2, "the search does not wait")
            # This one began later: when its time is over, that of the first one would be, too.
            assert plain_http(server, b"") == b""
        for _ in range(2):
            answer = HTTPResponse(used)
            answer.begin()
            assert (answer.status, len(answer.read()) > 0) == (200, True)
            used.sendall(search)


@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
def test_a_sketch_that_trickles_in_is_given_up(settings: Settings, sketch: bytes, form: bool) -> None:
    with served(settings, queue=0, upload_seconds=1.0) as server:
        kind = b"Content-Type: multipart/form-data; boundary=b\r\n" if form else b""
        with connect(server) as connection:
            connection.sendall(SEARCH + kind + CLOSE + b"Content-Length: 100000\r\n\r\n--b\r\n")
            answer = trickle(connection)
        assert (status(answer), code(answer)) == (400, "undecodable_upload")
        wait_until_room_is(server, True)
        assert server.http.post("/search", content=sketch).status_code == 200


def test_a_sketch_may_come_in_any_number_of_chunks_of_an_ordinary_size(http: httpx.Client, sketch: bytes) -> None:
    padded = sketch.ljust(2 * FREE_CHUNKS * CHUNK_BYTES - 20_000, b"\0")
    chunks = (padded[at : at + CHUNK_BYTES] for at in range(0, len(padded), CHUNK_BYTES))
    found, plain = (http.post("/search", content=body) for body in (chunks, sketch))
    assert found.json()["results"] == plain.json()["results"]


CHUNKED = SEARCH + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED + b"1\r\nx\r\n" * 100_000,
        CHUNKED + b"1;" + b"x" * 200_000,
        CHUNKED + b"0\r\n" + b"a: b\r\n" * 100_000,
        CHUNKED + b"0\r\na: " + b"b" * 200_000,
        SEARCH + b"a: b\r\n" * 1_000_000,
        SEARCH + b"a: " + b"b" * 50_000_000,
        b"GET /" + b"a" * 200_000,
    ],
    ids=["chunks", "chunk extension", "trailers", "long trailer", "headers", "long header", "long target"],
)
def test_requests_that_cost_much_are_refused(server: Served, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals, refuse = list[str](), Connection.send_400_response

    def noted(self: Connection, msg: str) -> None:
        refusals.append(msg)
        refuse(self, msg)

    monkeypatch.setattr(Connection, "send_400_response", noted)
    with connect(server) as connection, suppress(ConnectionError):
        connection.sendall(sent)
        rest(connection)
    assert len(refusals) == 1
    assert server.http.get("/healthz").status_code == 200


def test_a_client_that_is_still_sending_reads_why_it_is_refused(server: Served) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /gallery?folder=" + b"0" * 131_000)
        assert status(rest(connection)) == 400
        for _ in range(5):
            connection.sendall(b"0" * 1000)


def test_headers_behind_a_body_are_dropped(server: Served) -> None:
    trailers = b"X-Request-ID: of-a-trailer\r\nX-SBIR-Token: %b\r\n" % server.app.state.token.encode()
    sent = b"POST /photos/1/reveal HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" + CLOSE
    answer = plain_http(server, sent + b"\r\n1\r\nx\r\n0\r\n" + trailers + b"\r\n")
    assert status(answer) == 403
    assert b"of-a-trailer" not in answer


@pytest.fixture
def large() -> FastAPI:
    """An application whose answer is larger than what sockets hold."""
    app = FastAPI()

    @app.get("/")
    async def answer() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(PIECES):
                yield bytes(65536)

        return StreamingResponse(pieces())

    return app


PIECES = 1000


@pytest.mark.usefixtures("impatient")
def test_a_client_that_receives_nothing_of_an_answer_is_closed(settings: Settings, large: FastAPI) -> None:
    with started(large, settings) as server, connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ended = select.poll()
        ended.register(connection, select.POLLHUP | select.POLLERR)
        wait_until(lambda: ended.poll(0), "the connection is not closed")


@pytest.mark.usefixtures("impatient")
def test_a_client_that_receives_an_answer_slowly_gets_all_of_it(settings: Settings, large: FastAPI) -> None:
    with started(large, settings) as server, connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        taken = 0
        while piece := connection.recv(16384):
            taken += len(piece)
        assert taken > PIECES * 65536


def test_unreceived_answers_are_limited(settings: Settings, large: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_HELD", 300_000)
    with started(large, settings) as server, ExitStack() as opened:
        readers = [opened.enter_context(connect(server)) for _ in range(8)]
        ended = select.poll()
        for reader in readers:
            ended.register(reader, select.POLLHUP | select.POLLERR)
            reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: len(ended.poll(0)) >= 4, "no connection is closed")
        assert len(ended.poll(0)) < 8


HOST = b"Host: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
UPGRADE = SEARCH + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (SEARCH + CLOSE, 422),  # without a length there is no body
        (SEARCH + b"Content-Length: many\r\n", 400),
        (SEARCH + b"Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        (SEARCH + b"Transfer-Encoding: gzip\r\n", 400),
        (SEARCH + b"No colon here\r\n", 400),
        *((line + b"\r\n" + HOST, 400) for line in (b"nonsense", b"GET", b"\x16\x03\x01\x02\x00\x01")),
        *((b"GET " + target + b" HTTP/1.1\r\n" + HOST, 400) for target in (b"/a b", b"/\xff")),
        *(
            (b"GET " + target + b" HTTP/1.1\r\n" + HOST + CLOSE, 404)
            for target in b"//healthz /healthz/ * ftp://a/healthz healthz http://localhost//healthz".split()
        ),
        # The whole address, as a forward proxy may send it: its host counts, not that of the header.
        *(
            (b"GET " + target + b" HTTP/1.1\r\n" + HOST + CLOSE, 200)
            for target in b"http://a/healthz HTTPS://localhost:8000/info? http://[::1]:9 http://127.0.0.1?x".split()
        ),
        (b"GET http://photos.example/info HTTP/1.1\r\n" + HOST + CLOSE, 400),
        (b"GET http://localhost/info HTTP/1.1\r\nHost: photos.example\r\n" + CLOSE, 200),
        (b"GET /photos/%2e%2e/healthz HTTP/1.1\r\n" + HOST + CLOSE, 404),
        (b"GET /healthz?x=" + b"y" * 8_000 + b" HTTP/1.1\r\n" + HOST + CLOSE, 200),
        (b"GET /healthz?x=" + b"y" * 20_000 + b" HTTP/1.1\r\n" + HOST + CLOSE, 422),
        (GET, 400),
        (b"GET /healthz HTTP/2.0\r\n" + HOST + CLOSE, 200),
        # Health checkers may name no host.
        *((b"GET /healthz HTTP/1.0\r\n" + host, 200) for host in (b"", b"Host:\r\n")),
        (GET + b"Host:\r\n" + CLOSE, 200),
        # Another protocol is not spoken, and a body is not lost where it is asked for.
        (UPGRADE + b"Content-Length: 3\r\n\r\nx", 415),
        (UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", 415),
        (GET + HOST + b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n", 200),
    ],
    ids=lambda value: value[:60].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_a_strange_request_is_answered(server: Served, sent: bytes, expected: int) -> None:
    answer = plain_http(server, sent + b"\r\n")
    assert status(answer) == expected
    assert b"\r\nserver:" not in answer.lower()
    if expected > 400:
        assert code(answer)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "answering"), [("::", {4, 6}), ("::1", {6}), ("0.0.0.0", {4})])
def test_one_address_stands_for_both_ip_versions(host: str, answering: set[int]) -> None:
    with listening(host, 0) as listener:
        port, connected = listener.getsockname()[1], set()
        for version, own in ((4, "127.0.0.1"), (6, "::1")):
            with suppress(ConnectionError), socket.create_connection((own, port), timeout=PATIENCE):
                connected.add(version)
    assert connected == answering


@pytest.fixture
def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(connection_module, "most_connections", lambda: 4)
    with served(settings) as server:
        yield server


def answered(server: Served) -> int:
    return httpx.get(f"{server.url}/healthz", timeout=PATIENCE).status_code


def test_the_connection_that_has_been_idle_longest_makes_room(small: Served) -> None:
    with ExitStack() as opened:
        first, *others = [opened.enter_context(connect(small)) for _ in range(3)]
        assert answered(small) == 200
        assert rest(first) == b""
        for other in others:
            other.sendall(GET + HOST + CLOSE + b"\r\n")
            assert status(rest(other)) == 200


def test_those_that_are_being_answered_stay_and_a_new_one_is_refused(small: Served, sketch: bytes) -> None:
    search = SEARCH + CLOSE + b"Content-Length: %d\r\n\r\n" % len(sketch)
    with ExitStack() as opened:
        with occupied(small):
            busy = [opened.enter_context(connect(small)) for _ in range(3)]
            for connection in busy:
                connection.sendall(search + sketch)
            wait_until(lambda: small.context.worker.held == 4, "the searches do not wait")
            refused = plain_http(small, GET + HOST + CLOSE + b"\r\n")
            assert status(refused) == 503
        for connection in busy:
            assert status(rest(connection)) == 200
    assert answered(small) == 200

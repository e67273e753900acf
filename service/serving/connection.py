"""Puts a guard before uvicorn's HTTP protocol, which limits what one client may cost the others.

The guard hands all bytes to uvicorn's protocol. A parser of its own tells it when requests begin and end; the
application, which it wraps, when answers are over.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import uuid
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.schemas import ErrorDetail, ErrorResponse
from service.serving.ports import most_connections

# Seconds that a client may keep the server waiting: for the head of a request, or by taking nothing of an answer.
HEAD_SECONDS = 20.0
# Bytes of an answer that a client must take in that time.
LEAST_TAKEN = 16 * 1024
# Bytes of all answers together that clients have not taken.
MAX_HELD = 64 * 1024 * 1024
# Bytes without a whole head, or anything of a body, among them.
MAX_HEAD = 64 * 1024
MAX_HEADERS = 100
# Requests on one connection that wait for the answers to those before them.
MAX_PIPELINED = 16
# Each chunk of a body costs time, however small it is: so many are free, the others need so many bytes on average.
FREE_CHUNKS, CHUNK_BYTES = 1000, 256
# Seconds that running and waiting jobs have to finish when the server stops.
GRACE_SECONDS = 30

log = logging.getLogger("sketch_search")


def server_config(app: ASGIApp, **other: Any) -> uvicorn.Config:
    """Makes uvicorn's configuration for ``app``. other: further settings of uvicorn."""

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection | None = scope.get("state", {}).pop("connection", None)
        if connection is None:
            await app(scope, receive, send)
            return

        async def send_noted(message: Message) -> None:
            connection.sending = True
            await send(message)

        try:
            await app(scope, receive, send_noted)
        finally:
            connection.answered()

    crowd: set[Connection] = set()
    return uvicorn.Config(
        noted,
        http=cast(type[asyncio.Protocol], partial(Connection, crowd)),
        loop="asyncio",  # others would not ask ``Listener`` for connections
        ws="none",
        log_config=None,  # all goes through the one format of the program
        access_log=False,  # the application logs its requests itself
        server_header=False,
        **{"timeout_graceful_shutdown": GRACE_SECONDS, **other},
    )


class Refused(Exception):
    """A client's bytes are refused; ``status`` is that of the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Framing:
    """Follows where requests begin and end in a client's bytes, and refuses those that cost too much to parse.

    ``heads`` counts requests whose heads are complete, ``bodies`` complete ones, ``answered`` (by the caller) answers.
    """

    def __init__(self) -> None:
        # It calls the methods on_... below.
        self._parser = httptools.HttpRequestParser(self)
        # uvicorn's takes apart what follows on "Connection: close", too.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._refused: Refused | None = None
        self._barren = self._headers = self._chunks = self._body = 0
        self._target = b""
        self._has_body = False
        self.heads = self.bodies = self.answered = 0

    def feed(self, data: bytes) -> None:
        """Parses the next bytes. Raises Refused."""
        try:
            for start in range(0, len(data), MAX_HEAD):
                piece = data[start : start + MAX_HEAD]
                self._barren += len(piece)
                self._parser.feed_data(piece)
                if self._barren > MAX_HEAD:
                    self._refuse(431, "The head of the request is too long.")
        except httptools.HttpParserUpgrade:
            pass  # without a body, it is answered as if it did not ask for another protocol
        except httptools.HttpParserError:
            raise self._refused or Refused(400, "This is no HTTP request.") from None

    def _refuse(self, status: int, message: str) -> None:
        self._refused = Refused(status, message)
        raise self._refused

    def on_message_begin(self) -> None:
        if self.heads - self.answered >= MAX_PIPELINED:
            self._refuse(400, "Too many requests wait on one connection.")
        self._headers = self._chunks = self._body = 0
        self._target = b""
        self._has_body = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Headers behind the body count, too.
        self._headers += 1
        if self._headers > MAX_HEADERS:
            self._refuse(431, "The request has too many headers.")
        self._has_body |= name.lower() in (b"content-length", b"transfer-encoding") and value != b"0"

    def on_headers_complete(self) -> None:
        if not self._target.startswith(b"/") or not self._target.isascii():
            self._refuse(400, "The target of the request is no path.")
        # The parser gives up the body together with the protocol.
        if self._has_body and self._parser.should_upgrade():
            self._refuse(400, "A request with a body may not ask for another protocol; send it without Upgrade.")
        self.heads += 1
        self._barren = 0

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + self._body // CHUNK_BYTES:
            self._refuse(400, "The body comes in too many small chunks.")

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._barren = 0

    def on_message_complete(self) -> None:
        self.bodies += 1
        self._barren = 0


class _WithoutTrailers(HttpToolsProtocol):
    """Drops the headers behind a body in chunks, which uvicorn adds to those of the request."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.headers = []


class Connection(asyncio.Protocol):
    """Closes a connection whose client keeps the server waiting for HEAD_SECONDS, however many bytes trickle.

    Such a client sends its head too slowly, goes on sending a body after it has been refused, or takes nothing of an
    answer. The bodies of sketches have a limit of their own (``service.http.upload``).

    If ``most`` are open, a new connection replaces the one that has kept the server waiting longest; if none does, the
    new one is refused with 503. If clients leave more than MAX_HELD bytes of answers untaken, the one that has done so
    for longest is closed.
    """

    head_seconds = HEAD_SECONDS
    # An eighth less than are accepted: while some of these are being closed, others already come.
    most = most_connections() * 7 // 8

    def __init__(self, crowd: set[Connection], **given: Any) -> None:
        """crowd: all connections of the server. given: what uvicorn gives to a protocol."""
        self._crowd = crowd
        # The protocol copies its state into the scope of each request.
        self._inner = _WithoutTrailers(**{**given, "app_state": {**given["app_state"], "connection": self}})
        self._framing = Framing()
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        # Bytes of the answer that were left when the deadline was set.
        self._left = 0
        self._paused = self.sending = False
        # When the server began to wait for this client, or to answer it, by the event loop's clock.
        self._since = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(self._transport)
        # Each part of an answer would wait until the client has confirmed the one before, some 40 ms. asyncio does
        # this only if the listening socket names its protocol, which that of socket.create_server does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._crowd.add(self)
        self._wait()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        heads = self._framing.heads
        try:
            self._framing.feed(data)
        except Refused as refusal:
            self._refuse(refusal.status, "bad_request", str(refusal))
            return
        if self._framing.heads > heads:
            self._since = self._loop.time()
            self._wait()
        self._inner.data_received(data)

    def answered(self) -> None:
        self.sending = False
        self._framing.answered += 1
        self._since = self._loop.time()
        self._wait()

    def pause_writing(self) -> None:
        self._inner.pause_writing()
        self._paused = True
        self._wait()
        slow = [other for other in self._crowd if other._paused]
        if sum(other._transport.get_write_buffer_size() for other in slow) > MAX_HELD:
            log.warning("Answers are not taken: the connection that has waited longest is closed.")
            min(slow, key=lambda other: other._since)._close()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
        self._paused = False
        self._wait()

    def eof_received(self) -> None:
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.discard(self)
        self._stop_waiting()
        self._paused = False
        self._inner.connection_lost(exc)

    def _waits_for_its_client(self) -> bool:
        framing = self._framing
        return self._paused or framing.answered >= framing.heads or framing.bodies < framing.heads

    def _wait(self) -> None:
        """Starts the clock if the client is to do something, and stops it while a request is being answered."""
        if not self._paused and self._framing.answered < self._framing.heads:
            self._stop_waiting()
        elif self._deadline is None and self in self._crowd:
            self._left = self._transport.get_write_buffer_size()
            self._deadline = self._loop.call_later(self.head_seconds, self._look)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look(self) -> None:
        """Closes the connection, or waits once more if the client has taken something of its answer."""
        self._deadline = None
        left = self._transport.get_write_buffer_size()
        if left and self._left - left >= LEAST_TAKEN:
            self._wait()
        else:
            self._close()

    def _make_room(self) -> None:
        """Closes a connection, maybe this one, if there are too many."""
        if len(self._crowd) <= self.most:
            return
        waiting = [other for other in self._crowd if other is not self and other._waits_for_its_client()]
        if waiting:
            log.warning("More than %d connections: the one that keeps the server waiting longest is closed.", self.most)
            min(waiting, key=lambda other: other._since)._close()
            return
        log.warning("More than %d connections, all of them being answered: a new one is refused.", self.most)
        self._crowd.discard(self)
        self._refuse(503, "too_many_connections", "The server has too many connections. Try again in a moment.")

    def _close(self) -> None:
        self._crowd.discard(self)
        # Unsent data is thrown away, or the kernel would keep it for as long as the client likes.
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._transport.abort()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answers in the shape that all errors have, unless another answer has begun, and closes."""
        if not self.sending:
            request_id = uuid.uuid4().hex
            detail = ErrorDetail(code=code, message=message, request_id=request_id)
            body = ErrorResponse(error=detail).model_dump_json()
            self._transport.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\nx-request-id: {request_id}\r\n\r\n{body}".encode()
            )
        self._transport.close()

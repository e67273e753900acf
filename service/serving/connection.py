"""Listens on ports, and keeps clients from blocking each other, on top of uvicorn's HTTP protocol."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
import uuid
from http import HTTPStatus
from typing import Any, ClassVar, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from model.errors import UserError
from service.schemas import ErrorDetail, ErrorResponse

# Seconds that a client may keep the server waiting: for the head of a request, or by not receiving an answer.
HEAD_SECONDS = 20.0
# Bytes of an answer that a client must receive in that time.
LEAST_TAKEN = 16 * 1024
# The most bytes of all answers together that clients have not received.
MAX_HELD = 64 * 1024 * 1024
# The most bytes without a complete head or any part of a body.
MAX_HEAD = 64 * 1024
MAX_HEADERS = 100
# Each chunk of a body costs time, however small it is: this many are free, the others need this many bytes on average.
FREE_CHUNKS, CHUNK_BYTES = 1000, 256
# Seconds for running and waiting jobs to finish when the server stops.
GRACE_SECONDS = 30
# Files reserved for the program itself: the index and the next one, photos, libraries.
RESERVE = 32
# More connections would fill a small machine's memory with their buffers.
MAX_CONNECTIONS = 1000

log = logging.getLogger("sketch_search")


def most_connections() -> int:
    """Returns how many connections may be open, by the limit of open files: 8 to MAX_CONNECTIONS."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(8, min(MAX_CONNECTIONS, files - RESERVE))


def server_config(app: ASGIApp, **other: Any) -> uvicorn.Config:
    """Makes uvicorn's configuration for ``app``. other: further settings of uvicorn."""
    return uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",  # others would bypass ``Listener``
        ws="none",
        log_config=None,  # everything uses the program's own format
        access_log=False,  # the application logs its requests itself
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        **{"timeout_graceful_shutdown": GRACE_SECONDS, **other},
    )


class Parser(h11.Connection):
    """Refuses requests that would cost too much."""

    _chunks = _body = 0

    def next_event(self) -> Any:
        """Returns h11's next event. Raises RemoteProtocolError."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._body = 0
            if len(event.headers) > MAX_HEADERS:
                raise h11.RemoteProtocolError("The request has too many headers.", 431)
            if not event.http_version.startswith(b"1."):
                raise h11.RemoteProtocolError("This server supports only HTTP/1.1.", 505)
            if not event.target.startswith(b"/"):
                raise h11.RemoteProtocolError("The target of the request is not a path.")
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._body += len(event.data)
            if self._chunks > FREE_CHUNKS + self._body // CHUNK_BYTES:
                raise h11.RemoteProtocolError("The body has too many small chunks.")
        return event


class Connection(H11Protocol):
    """Closes a connection whose client keeps the server waiting for HEAD_SECONDS, even if bytes trickle in.

    This client sends its head too slowly, continues to send a refused body, or does not receive its
    answer. The bodies of sketches have a separate limit (``service.http.upload``).

    If ``most`` are open, a new connection replaces the one that has kept the server waiting longest; if none does, the
    new one is refused with 503. If clients leave more than MAX_HELD bytes of answers unread, the one that has done so
    for longest is closed.
    """

    head_seconds = HEAD_SECONDS
    # An eighth less than are accepted: while some of these are being closed, others already arrive.
    most = most_connections() * 7 // 8

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.conn = Parser(h11.SERVER, MAX_HEAD)
        self._deadline: asyncio.TimerHandle | None = None
        # Bytes of the answer that were unsent when the deadline was set.
        self._left = 0
        self._paused = False
        # When the server began to wait for this client, or to answer it, by the event loop's clock.
        self._since = self.loop.time()

    @property
    def _others(self) -> list[Connection]:
        return [cast(Connection, other) for other in self.connections if other is not self]

    @property
    def _is_answering(self) -> bool:
        return self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Otherwise each part of an answer would wait for the client to confirm the previous one, some 40 ms. asyncio
        # does this only if the listening socket names its protocol, which that of socket.create_server does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        for start in range(0, len(data), MAX_HEAD):
            if not self.transport.is_closing():
                super().data_received(data[start : start + MAX_HEAD])
        if self.cycle is not before:
            self._since = self.loop.time()
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()
        self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._paused = True
        self._wait()
        slow = [other for other in (self, *self._others) if other._paused]
        if sum(other.transport.get_write_buffer_size() for other in slow) > MAX_HELD:
            log.warning("Clients do not receive their answers: closing the connection that has waited longest.")
            min(slow, key=lambda other: other._since)._close()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._paused = False
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that h11 has refused; uvicorn calls this for that error."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError):
            self._refuse(error.error_status_hint, "bad_request", str(error))

    def _wait(self) -> None:
        """Starts the clock if the server waits for the client, and stops it while a request is being answered."""
        if not self._paused and self._is_answering:
            self._stop_waiting()
        elif self._deadline is None and self in self.connections:
            self._left = self.transport.get_write_buffer_size()
            self._deadline = self.loop.call_later(self.head_seconds, self._look)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look(self) -> None:
        """Closes the connection, or waits again if the client has received part of its answer."""
        self._deadline = None
        left = self.transport.get_write_buffer_size()
        if left and self._left - left >= LEAST_TAKEN:
            self._wait()
        else:
            self._close()

    def _make_room(self) -> None:
        """Closes a connection, perhaps this one, if there are too many."""
        if len(self.connections) <= self.most:
            return
        waiting = [
            other
            for other in self._others
            if other._paused or not other._is_answering or other.conn.their_state is h11.SEND_BODY
        ]
        if waiting:
            log.warning("More than %d connections: closing the one that kept the server waiting longest.", self.most)
            min(waiting, key=lambda other: other._since)._close()
            return
        log.warning("More than %d connections, all being answered: refusing a new one.", self.most)
        self.connections.discard(self)
        self._refuse(503, "too_many_connections", "The server has too many connections. Try again in a moment.")

    def _close(self) -> None:
        self.connections.discard(self)
        # Unsent data is discarded, or the kernel would keep it for as long as the client wants.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Sends an error in the usual shape, unless another answer has begun, and closes."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            request_id = uuid.uuid4().hex
            detail = ErrorDetail(code=code, message=message, request_id=request_id)
            body = ErrorResponse(error=detail).model_dump_json()
            self.transport.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\nx-request-id: {request_id}\r\n\r\n{body}".encode()
            )
        self.transport.close()


class PortTaken(UserError):
    """The server cannot listen on the address or the port."""


class Listener(socket.socket):
    """A listening socket that accepts a connection only while fewer than ``most`` are open on all listeners together.

    Others wait in the kernel. asyncio accepts all waiting ones before it handles any of them, so that a crowd would
    take every descriptor at once, and each further attempt would be a traceback in the log.
    """

    # All listeners share this list, as they share the descriptors of the process.
    _accepted: ClassVar[list[socket.socket]] = []

    def __init__(self, listening: socket.socket, most: int) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._most = most

    def accept(self) -> tuple[socket.socket, object]:
        """Returns the next connection. Raises BlockingIOError if none is waiting, or too many are open."""
        if len(self._accepted) >= self._most:
            self._accepted[:] = [connection for connection in self._accepted if connection.fileno() != -1]
        if len(self._accepted) >= self._most:
            raise BlockingIOError
        connection, address = super().accept()
        self._accepted.append(connection)
        return connection, address


def listening(host: str, port: int, setting: str = "--port or SBIR_PORT") -> Listener:
    """Returns a socket that listens; port 0 takes any free one.

    Raises PortTaken, whose message names ``setting`` as the setting to change.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return Listener(socket.create_server((host, port), family=family), most_connections())
    except OSError as error:
        # Python adds the address to the system's message.
        reason = str(error.strerror).partition(" (while")[0]
        raise PortTaken(f"cannot listen on {host}, port {port}: {reason}; name another with {setting}") from error


def address(host: str, port: int) -> str:
    """Returns the address as a URL for browsers."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

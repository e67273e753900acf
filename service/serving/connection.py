"""Listens on ports, and keeps clients from blocking each other, on top of uvicorn's HTTP protocol."""

import asyncio
import logging
import re
import socket
import struct
import sys
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from sketch_search.model.errors import UserError

# Seconds that a client may keep the server waiting: for the head of a request, or by not receiving an answer.
HEAD_SECONDS = 20.0
# Bytes of an answer that a client must receive in that time.
LEAST_TAKEN = 16 * 1024
# The most bytes of all answers together that clients have not received.
MAX_HELD = 64 * 1024 * 1024
# The most bytes without a complete head or any part of a body.
MAX_HEAD = 64 * 1024
# Each chunk of a body costs time, however small it is: this many are free, the others need this many bytes on average.
FREE_CHUNKS, CHUNK_BYTES = 1000, 256
# Seconds for running and waiting jobs to finish when the server stops.
GRACE_SECONDS = 30
# More connections would fill a small machine's memory with their buffers.
MAX_CONNECTIONS = 1000
# Connections that wait in the kernel. asyncio accepts all of them before the server sees any.
BACKLOG = 100
# Files beside those connections: of the index and the next one, photos, libraries, and of connections that are accepted
# while others are being closed.
RESERVE = 32 + 8 * BACKLOG

# A target of a request that is a whole address: host with port, path with query.
_ADDRESS = re.compile(rb"https?://([^/?]*)/?(.*)", re.IGNORECASE)

log = logging.getLogger("sketch_search")


def most_connections() -> int:
    """Returns how many connections may be open, 8 to MAX_CONNECTIONS, and lets this process open as many files."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    files, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited, needed = resource.RLIM_INFINITY, MAX_CONNECTIONS + RESERVE
    if files != unlimited and files < needed:
        files = needed if allowed == unlimited else min(needed, allowed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, allowed))
    return MAX_CONNECTIONS if files == unlimited else max(8, min(MAX_CONNECTIONS, files - RESERVE))


def server_config(app: ASGIApp, **other: Any) -> uvicorn.Config:
    """Makes uvicorn's configuration for ``app``. other: further settings of uvicorn."""
    settings = {
        "http": Connection,
        "loop": "asyncio",  # others would accept more than BACKLOG at once
        "ws": "none",
        "log_config": None,  # everything uses the program's own format
        "access_log": False,  # the application logs its requests itself
        "server_header": False,
        "h11_max_incomplete_event_size": MAX_HEAD,
        "backlog": BACKLOG,
        "limit_concurrency": most_connections(),
        "timeout_graceful_shutdown": GRACE_SECONDS,
    }
    return uvicorn.Config(app, **{**settings, **other})


class Parser(h11.Connection):
    """Refuses bodies in too many small chunks, and takes whole addresses as targets (RFC 9112, 3.2.2)."""

    _chunks = _body = 0

    def next_event(self) -> Any:
        """Returns h11's next event. Raises RemoteProtocolError."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._body = 0
            if absolute := _ADDRESS.fullmatch(event.target):
                # Its host replaces the header's.
                headers = [(name, value) for name, value in event.headers if name != b"host"]
                event = h11.Request(
                    method=event.method,
                    headers=[*headers, (b"host", absolute[1])],
                    target=b"/" + absolute[2],
                    http_version=event.http_version,
                )
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._body += len(event.data)
            if self._chunks > FREE_CHUNKS + self._body // CHUNK_BYTES:
                raise h11.RemoteProtocolError("The body has too many small chunks.")
        return event


class Connection(H11Protocol):
    """Closes a connection that keeps the server waiting for HEAD_SECONDS: for a head, a refused body, or unread.

    At ``limit_concurrency`` a new one replaces the longest such; if none is, uvicorn answers 503. Beyond MAX_HELD
    bytes unread, the one that has held its longest is closed.
    """

    head_seconds = HEAD_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = Parser(h11.SERVER, MAX_HEAD)
        # When the server began to wait for this client, by the event loop's clock.
        self._since = self.loop.time()
        # Bytes of the answer that were unsent at the last look.
        self._left = 0
        self._refused = False

    @property
    def _is_waiting(self) -> bool:
        """Whether the server waits for the client: for a request, or to receive an answer."""
        return self.flow.write_paused or self.conn.our_state not in (h11.SEND_RESPONSE, h11.SEND_BODY)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Otherwise each part of an answer would wait for the client to confirm the previous one, some 40 ms. asyncio
        # does this only if the listening socket names its protocol, which that of socket.create_server does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._looking = self.loop.call_later(self.head_seconds, self._look)
        self._make_room()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._since = self.loop.time()
        slow = [connection for connection in cast(set[Connection], self.connections) if connection.flow.write_paused]
        if sum(connection.transport.get_write_buffer_size() for connection in slow) > MAX_HELD:
            log.warning("Clients do not receive their answers: closing the connection that has waited longest.")
            min(slow, key=lambda connection: connection._since)._close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._looking.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuses a request that h11 has refused, unless an answer has begun. What still arrives is dropped.

        uvicorn closes the socket with unread bytes, which resets the connection before the client has read why.
        """
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=msg.encode()), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()
        self._since, self._refused = self.loop.time(), True

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def _look(self) -> None:
        """Closes the connection if it is overdue, unless the client has received part of its answer."""
        left = self.transport.get_write_buffer_size()
        overdue = self._is_waiting and self.loop.time() - self._since >= self.head_seconds
        if overdue and self._left - left < LEAST_TAKEN:
            self._close()
        else:
            self._left = left
            self._looking = self.loop.call_later(self.head_seconds, self._look)

    def _make_room(self) -> None:
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            others = cast(set[Connection], self.connections - {self})
            if waiting := [peer for peer in others if peer._is_waiting or peer.conn.their_state is h11.SEND_BODY]:
                log.warning("Too many connections: closing the one that kept the server waiting longest.")
                min(waiting, key=lambda connection: connection._since)._close()

    def _close(self) -> None:
        self.connections.discard(self)
        # Unsent data is discarded, or the kernel would keep it for as long as the client wants.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class PortTaken(UserError):
    """The server cannot listen on the address or the port."""


def listening(host: str, port: int, setting: str = "--port or SKETCH_SEARCH_PORT") -> socket.socket:
    """Returns a socket that listens, on :: to IPv4, too. Port 0: any free one. Raises PortTaken, names ``setting``."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        # Python adds the address to the system's message.
        reason = str(error.strerror).partition(" (while")[0]
        raise PortTaken(f"cannot listen on {host}, port {port}: {reason}; name another with {setting}") from error


def address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The HTTP connection: uvicorn's, with limits on how long a request may take to begin, and on how many there are.

It overrides methods of uvicorn's protocol, which are no public interface: pyproject.toml allows only the versions of
uvicorn that it was tested with.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.schemas import ErrorDetail, ErrorResponse
from service.serving.listener import most_connections

# Until the head of a request is there. A browser keeps connections open for later, too; it opens them again.
HEAD_SECONDS = 20.0
# When the server stops, the job that runs and those that wait may take so long to finish.
GRACE_SECONDS = 30

log = logging.getLogger("sketch_search")


def server_config(app: ASGIApp, **other: Any) -> uvicorn.Config:
    """How ``app`` is served. ``other``: uvicorn's settings."""
    return uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",  # others would not ask ``Listener`` for connections
        ws="none",
        log_config=None,  # all goes through the one format of the program
        server_header=False,
        **{"timeout_graceful_shutdown": GRACE_SECONDS, **other},
    )


class Connection(H11Protocol):
    """Closes a connection on which no request has begun for HEAD_SECONDS, however many bytes trickle in.

    Such a client never sends a head, sends it too slowly, or goes on sending a body after it has been refused. While a
    request is answered there is no limit here; sketches have one of their own (see ``service.http.upload``).

    Where ``most`` are open, a new one takes the place of the one that has kept the server waiting longest: for a
    request, for the rest of one, or for reading an answer. Where it waits for none, the new one is refused with 503.
    """

    head_seconds = HEAD_SECONDS
    # An eighth less than are accepted: while some of these are being closed, others already come.
    most = most_connections() * 7 // 8

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._given_up = False
        # When the server began to wait for this client, or to answer it, by the clock of the event loop.
        self._since = self.loop.time()
        # The application logs its requests itself (see ``service.http.middleware.access``).
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        # An answer is written in parts. Without this, each part would wait until the client has confirmed the one
        # before, some 40 ms. asyncio sets it only where the listening socket names its protocol, which
        # socket.create_server does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._set_deadline()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._since = self.loop.time()
        self._set_deadline()

    def on_response_complete(self) -> None:
        """An answer is over."""
        super().on_response_complete()
        self._since = self.loop.time()
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        self._clear_deadline()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP, and close."""
        self._refuse(400, "bad_request", "This is no HTTP request.")

    def _make_room(self) -> None:
        """Close a connection, maybe this one, where there are too many."""
        if len(self.connections) <= self.most:
            return
        counted = [other for other in self.connections if isinstance(other, Connection) and not other._given_up]
        if len(counted) <= self.most:
            return
        waiting = [other for other in counted if other is not self and other._waits_for_its_client()]
        if waiting:
            log.warning("More than %d connections: the one that keeps the server waiting longest is closed.", self.most)
            longest = min(waiting, key=lambda other: other._since)
            longest._given_up = True
            longest.transport.abort()
            return
        log.warning("More than %d connections, all of them being answered: a new one is refused.", self.most)
        self._given_up = True
        self._refuse(503, "too_many_connections", "The server has too many connections. Try again in a moment.")

    def _waits_for_its_client(self) -> bool:
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body or self.flow.write_paused

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer in the shape that all errors have, and close."""
        # Once an answer has begun, h11 refuses to send another one.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            request_id = uuid.uuid4().hex
            error = ErrorDetail(code=code, message=message, request_id=request_id)
            body = ErrorResponse(error=error).model_dump_json().encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
                ("x-request-id", request_id),
            ]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _set_deadline(self) -> None:
        """Start the clock where no request is being answered, stop it where one is."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._clear_deadline()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

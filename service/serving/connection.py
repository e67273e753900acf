"""The HTTP connection: uvicorn's, without its trust in whoever is at the other end."""

from __future__ import annotations

import asyncio
import socket
import uuid
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.schemas import ErrorDetail, ErrorResponse

# For the head of a request; a browser keeps connections open that it has no use for yet, and opens them again.
HEAD_SECONDS = 20.0
# What runs and what waits behind it is finished first; a supervisor that is less patient ends the program earlier.
GRACE_SECONDS = 30


def server_config(app: ASGIApp, **other: Any) -> uvicorn.Config:
    """How ``app`` is served. ``other``: uvicorn's settings."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,  # all goes through the one format of the program
        server_header=False,
        **{"timeout_graceful_shutdown": GRACE_SECONDS, **other},
    )


class Connection(H11Protocol):
    """Closes a connection on which no request has begun for HEAD_SECONDS, however many bytes trickle in.

    That is one that never sends a head, one that sends it too slowly, and one that goes on sending a body after it has
    been refused. While a request is answered, what is sent has its own limit (see ``service.http.upload``).
    """

    head_seconds = HEAD_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        # The application logs its requests itself (see ``service.http.middleware.access``).
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        # asyncio does so only where the listening socket names its protocol, which socket.create_server does not. An
        # answer is written in parts, and each would wait for the client's late word on the one before: 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        super().data_received(data)
        self._set_deadline()

    def on_response_complete(self) -> None:
        """An answer is over."""
        super().on_response_complete()
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        self._clear_deadline()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, like every other error, and close."""
        # Where an answer has begun or is over, another one would be an error here, and a trace in the log.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            request_id = uuid.uuid4().hex
            error = ErrorDetail(code="bad_request", message="This is no HTTP request.", request_id=request_id)
            body = ErrorResponse(error=error).model_dump_json().encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
                ("x-request-id", request_id),
            ]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(body), h11.EndOfMessage()):
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

"""The ports that the server listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from prometheus_client import start_http_server

from model.terminal import Refusal
from service.serving.listener import Listener, most_connections


class PortTaken(Refusal):
    """The address or the port cannot be listened on; the message says what to do."""

    def __init__(self, host: str, port: int, error: OSError, setting: str) -> None:
        super().__init__(f"cannot listen on {host}, port {port}: {error.strerror}; name another with {setting}")


def listening(host: str, port: int) -> Listener:
    """A socket that listens; port 0 takes any free one. Raises PortTaken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return Listener(socket.create_server((host, port), family=family), most_connections())
    except OSError as error:
        raise PortTaken(host, port, error, "--port or SBIR_PORT") from error


@contextmanager
def metrics_served(app: FastAPI, host: str, port: int) -> Iterator[int]:
    """Serve the application's metrics, and nothing else, on a port of their own while the block runs; the port.

    Raises PortTaken.
    """
    try:
        server, _ = start_http_server(port, host, app.state.metrics.registry)
    except OSError as error:
        raise PortTaken(host, port, error, "SBIR_METRICS_PORT") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def address(host: str, port: int) -> str:
    """As browsers take it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

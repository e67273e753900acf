"""The access log and the counts of requests: the outermost layer, which sees every request and every answer."""

from __future__ import annotations

import ipaddress
import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.serving import Metrics

# Asked every few seconds by machines: worth a line only when something is wrong.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
# As in errors.VERDICTS: nobody was answered.
_GONE = 499

log = logging.getLogger("sketch_search.access")


@dataclass(frozen=True)
class SearchNote:
    """What the access log tells of a search: the method used, what chose the photos, ``nprobe`` as asked for, the
    generation searched.
    """

    method: str
    select: str
    nprobe: str
    generation: str


@dataclass(frozen=True)
class Access:
    """One request, as it is logged: nothing of what was sent but its size, and no header.

    Attributes:
        route: the template of the path; "-" where there is nothing. status: 499 where nobody was left to answer.
        ms: from the head of the request to the end of the answer. bytes_in: of its body, as far as it was read.
        search: None for anything but a search that was answered.
    """

    request_id: str
    client: str
    verb: str
    route: str
    status: int
    ms: float
    bytes_in: int
    search: SearchNote | None

    def fields(self) -> dict[str, Any]:
        """Flat, in order; a search's fields only where there was one."""
        flat = asdict(self)
        search = flat.pop("search")
        return flat if search is None else {**flat, **search}

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.fields().items())


class AccessLog:
    """ASGI middleware: counts, times and logs every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        started = time.perf_counter()
        status, bytes_in = _GONE, 0

        async def receive_counted() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self._metrics.in_flight():
                await self._app(scope, receive_counted, send_noted)
        finally:
            seconds = time.perf_counter() - started
            route, verb = getattr(scope.get("route"), "path", "-"), scope["method"]
            self._metrics.answered(verb, route, status, seconds)
            access = Access(
                request_id=state.get("request_id", "-"),
                client=_address(scope),
                verb=verb if verb.isalpha() and len(verb) <= 16 else "-",
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
                bytes_in=bytes_in,
                search=state.get("search"),
            )
            level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
            log.log(level, "%s", access, extra={"access": access})


def _address(scope: Scope) -> str:
    """The client's; what a proxy has passed on may be any text, which could pose as other fields."""
    try:
        return str(ipaddress.ip_address(scope["client"][0])) if scope.get("client") else "-"
    except ValueError:
        return "-"

"""How many requests one client may make."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable

from cachetools import LRUCache
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.answers import error_answer

# Buckets kept, of the clients seen last; some hundred bytes each.
CLIENTS = 10_000
# Whoever watches over the service must not be kept from it by whoever strains it.
_FREE = frozenset({"/healthz", "/readyz"})
# The page's own files and its small pictures come by the dozen for each thing that a person does: they have a bucket of
# their own, in which each request of the limit counts for so many.
_OF_THE_PAGE = ("/page/", "/thumbnails/")
PICTURES_A_REQUEST = 100


class Buckets:
    """A token bucket for each client: it holds a minute's requests and fills up evenly."""

    def __init__(self, per_minute: int, *, clients: int = CLIENTS, clock: Callable[[], float] = time.monotonic) -> None:
        """``clients``: how many are remembered; one that was forgotten starts anew. ``clock``: seconds."""
        self._most = float(per_minute)
        self._clock = clock
        # client -> tokens left, and when that was
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(clients)

    def take(self, client: str) -> float:
        """Take a token; 0.0 where there was one, else the seconds until there is."""
        now = self._clock()
        left, then = self._left.get(client, (self._most, now))
        left = min(self._most, left + (now - then) * self._most / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self._most
        self._left[client] = (left if wait else left - 1, now)
        return wait

    def __len__(self) -> int:
        return len(self._left)


class RateLimited:
    """ASGI middleware: 429 with Retry-After for a client that asks too often. Inside of RequestIds.

    Thumbnails and the page's files are counted by themselves, with a limit PICTURES_A_REQUEST times as high: a result
    brings many of them, but each costs the server a photo to read and shrink.
    """

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self._app = app
        self._buckets = Buckets(per_minute)
        self._pictures = Buckets(per_minute * PICTURES_A_REQUEST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _FREE:
            await self._app(scope, receive, send)
            return
        buckets = self._pictures if scope["path"].startswith(_OF_THE_PAGE) else self._buckets
        wait = math.ceil(buckets.take(network(scope["client"][0] if scope.get("client") else "")))
        if not wait:
            await self._app(scope, receive, send)
            return
        message = f"You ask more often than this server allows. Try again in {wait} s."
        request_id = scope["state"]["request_id"]
        answer = error_answer(429, "rate_limited", message, request_id, {"Retry-After": str(wait)})
        await answer(scope, receive, send)


def network(address: str) -> str:
    """Who is one client: an IPv4 address, or the 64 bits of an IPv6 one that a household has."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)

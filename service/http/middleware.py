"""Checks, counts, limits and logs every request in two layers of ASGI middleware, with CORS between them."""

import ipaddress
import json
import logging
import math
import re
import select
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Literal, TextIO

from cachetools import LRUCache
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sketch_search.model.terminal import printable
from sketch_search.service.errors import BrokenOff, ErrorDetail, ErrorResponse
from sketch_search.service.serving import Metrics
from sketch_search.service.settings import is_loopback

# A request id that is safe to echo and log.
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PORT = re.compile(r":[0-9]*\Z")
# Headers that say where a request comes from.
_ONCE = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")
# A token that needs no decoding.
_TOKEN = re.compile(rb"[A-Za-z0-9_-]{1,64}")
# Machines request these every few seconds: they are logged only if something is wrong.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
# The status of a request whose client left before it was answered, as in errors.HTTP_ERRORS.
_GONE = 499
# Four times what any route needs.
MAX_PARAMETERS = 64
MAX_BYTES = 8 * 1024
# Buckets kept, for the most recent clients; some hundred bytes each.
CLIENTS = 10_000
# Health checks must get through even when clients overload the service.
_FREE = frozenset({"/healthz", "/readyz"})
# State-changing requests, all other POSTs, are refused even from allowed origins.
_READING = frozenset({"/search", "/explain", "/locate"})
# The page loads its files and thumbnails by the dozen for each action of a person. They have a separate bucket, whose
# limit is this many times as high.
_PAGE_PATHS = ("/page/", "/thumbnails/")
PICTURES_A_REQUEST = 100

log = logging.getLogger("sketch_search")
access_log = logging.getLogger("sketch_search.access")


def error_answer(
    status: int,
    code: str,
    message: str,
    request_id: str,
    headers: dict[str, str] | None = None,
    nearest: tuple[str, ...] = (),
) -> JSONResponse:
    """Returns an error in the shape that all have. Its paths may be invalid Unicode, which JSON cannot hold."""
    detail = ErrorDetail(code=code, message=printable(message), request_id=request_id, nearest=nearest)
    body = ErrorResponse(error=detail)
    return JSONResponse(body.model_dump(), status, headers)


class AccessMiddleware:
    """Counts, times and logs each request as the outermost layer, and adds the headers that all answers have.

    Every answer has ``X-Request-ID``: the request's own if that is harmless. Handlers find it as
    ``request.state.request_id``. An unforeseen error becomes a 500 without details.

    Requests from pages of other sites or ports are refused, unless CORS lists their origin or somebody follows a link.
    Such a page could not read the answer, but it could keep the server busy, and infer from the time of an answer
    whether a folder has photos. State-changing requests are refused even from allowed origins.

    A request whose ``Host`` header names no known host is refused: a hostile web page can have its own host name
    resolve to this machine, and then read the answers as its own server's. A request of HTTP/1.0 may name no host:
    health checkers send such requests, browsers do not.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, hosts: Sequence[str], origins: Sequence[str], *, framed: bool = False
    ) -> None:
        """origins: the origins that CORS lists. If there are any, all pages may show the images.

        framed: whether pages of other sites may show the page in a frame; its own policy names them.
        """
        self._app, self._metrics, self._origins, self._framed = app, metrics, origins, framed
        self._hosts = [host.lower().removesuffix(".") for host in hosts]
        # The strictest headers; an answer may set its own, as the page does, which could not work with these.
        self._headers = {
            # An image or a JSON answer that is opened by itself loads, runs and sends nothing.
            "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            # An img element on any web page would otherwise get the photos of the person looking at it.
            "Cross-Origin-Resource-Policy": "cross-origin" if origins else "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        offered = Headers(scope=scope).get("x-request-id", "")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = offered if _SANE_ID.fullmatch(offered) else uuid.uuid4().hex
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
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if "frame-ancestors 'none'" not in headers["Content-Security-Policy"]:
                    del headers["X-Frame-Options"]
            await send(message)

        try:
            with self._metrics.in_flight.track_inprogress():
                answer = self._refusal(scope, request_id) or self._app
                await answer(scope, receive_counted, send_noted)
        except BrokenOff as why:
            log.warning("request %s breaks off: %s", request_id, why)
        # No outer layer handles errors: they are logged in full, and the client gets an id.
        except Exception:
            log.exception("request %s failed", request_id)
            if status != _GONE:
                raise
            answer = error_answer(500, "internal_error", "Something went wrong; see the server's log.", request_id)
            await answer(scope, receive, send_noted)
        finally:
            self._note(scope, status, bytes_in, perf_counter() - started)

    def _refusal(self, scope: Scope, request_id: str) -> Response | None:
        headers = Headers(scope=scope)
        if twice := next((name for name in _ONCE if len(headers.getlist(name)) > 1), None):
            return error_answer(400, "bad_request", f"The header {twice} is sent twice.", request_id)
        # Kubelets and load balancers ask by the address of a pod; the answer holds nothing of the photos.
        if scope["path"] not in _FREE and not self._has_known_host(scope):
            message = (
                "The Host header names an unknown host; if it is this server's, list it in SKETCH_SEARCH_ALLOWED_HOSTS."
            )
            return error_answer(400, "bad_host", message, request_id)
        if self._is_of_another_page(scope):
            message = (
                "This page's site may not search here; to allow it, list its origin in SKETCH_SEARCH_CORS_ORIGINS."
            )
            return error_answer(400, "bad_request", message, request_id)
        return None

    def _is_of_another_page(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        # Its img elements name no origin. Only the service's own page may change something.
        reads = scope["method"] != "POST" or scope["path"] in _READING
        if reads and self._origins and ("*" in self._origins or origin in (None, *self._origins)):
            return False
        site = headers.get("sec-fetch-site")
        if site is None:
            return origin is not None and self._is_foreign(origin, headers.get("host", ""))
        # A frame also follows links, without a click. Of the page, the browser asks the policy.
        link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        clicked = link and headers.get("sec-fetch-dest", "document") == "document"
        framed = link and self._framed and scope["path"] == "/"
        return site in ("cross-site", "same-site") and not (clicked or framed)

    def _is_foreign(self, origin: str, host: str) -> bool:
        """Returns True if the origin is not the service's own page, which has this host and port.

        Browsers send ``Sec-Fetch-Site`` only to servers with TLS or on their own machine; others have the origin alone.
        A proxy may have replaced the host that the browser knows, which is listed then, and no other port of this
        machine.
        """
        named, host_named = origin.partition("://")[2].lower(), host.lower()
        name = _PORT.sub("", named)
        by_proxy = "*" not in self._hosts and self._is_listed(name) and not is_loopback(name.strip("[]"))
        return named != host_named and (name == _PORT.sub("", host_named) or not by_proxy)

    def _has_known_host(self, scope: Scope) -> bool:
        named = Headers(scope=scope).getlist("host")
        if len(named) != 1:
            return not named and scope["http_version"] == "1.0"
        # "localhost." is localhost: the dot at the end only marks the name as complete.
        return not named[0] or self._is_listed(_PORT.sub("", named[0].lower()).removesuffix("."))

    def _is_listed(self, host: str) -> bool:
        return any(
            known in ("*", host) or (known.startswith("*.") and host.endswith(known[1:])) for known in self._hosts
        )

    def _note(self, scope: Scope, status: int, bytes_in: int, seconds: float) -> None:
        route, verb = getattr(scope.get("route"), "path", "-"), scope["method"]
        self._metrics.answered(verb, route, status, seconds)
        try:
            client = str(ipaddress.ip_address(scope["client"][0])) if scope.get("client") else "-"
        except ValueError:
            # A proxy may have passed on arbitrary text, which could pose as other log fields.
            client = "-"
        access = {
            "request_id": scope["state"]["request_id"],
            "client": client,
            "verb": verb if verb.isalpha() and len(verb) <= 16 else "-",
            # The template of its path, or "-".
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "bytes_in": bytes_in,
            **scope["state"].get("search", {}),
        }
        level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
        line = " ".join(f"{name}={value}" for name, value in access.items())
        access_log.log(level, "%s", line, extra={"access": access})


class LimitMiddleware:
    """Limits requests just before the routes, inside CORS, so that pages of other origins can read its refusals.

    It answers 429 to a client that sends too many requests, 422 to a query with too many parameters or bytes, and 404
    to a path that is not on this port. HEAD becomes a GET, whose body the server leaves out.
    """

    def __init__(self, app: ASGIApp, per_minute: int | None, *, metrics_apart: bool) -> None:
        """metrics_apart: /metrics is on the port ``app.state.metrics_port`` alone, and nothing else is."""
        self._app, self._metrics_apart = app, metrics_apart
        self._buckets = None if per_minute is None else Buckets(per_minute)
        self._pictures = None if per_minute is None else Buckets(per_minute * PICTURES_A_REQUEST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        # A copy, because the HTTP server decides by its own scope whether to send a body.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inner_scope = {**scope, "method": method, "headers": _headers(scope)}
        try:
            await self._app(inner_scope, receive, send)
        finally:
            # The access log names requests by their route.
            if "route" in inner_scope:
                scope["route"] = inner_scope["route"]

    def _refusal(self, scope: Scope) -> Response | None:
        path, query, request_id = scope["path"], scope["query_string"], scope["state"]["request_id"]
        buckets = self._pictures if path.startswith(_PAGE_PATHS) else self._buckets
        if buckets is not None and path not in _FREE:
            wait = math.ceil(buckets.take(network(scope["client"][0] if scope.get("client") else "")))
            if wait:
                message = f"Too many requests. Try again in {wait} s."
                return error_answer(429, "rate_limited", message, request_id, {"Retry-After": str(wait)})
        # The parser reads each name several times: 60 KB of names would keep all other clients waiting.
        if len(query) > MAX_BYTES:
            message = f"The query has {len(query)} bytes; the limit is {MAX_BYTES}. Send a sketch as the body."
            return error_answer(422, "bad_parameter", message, request_id)
        parameters = query.count(b"&") + 1
        if parameters > MAX_PARAMETERS:
            message = f"The query has {parameters} parameters; the limit is {MAX_PARAMETERS}."
            return error_answer(422, "bad_parameter", message, request_id)
        if self._metrics_apart and (path == "/metrics") != (scope["server"][1] == scope["app"].state.metrics_port):
            return error_answer(404, "not_found", "There is nothing here.", request_id)
        return None


def cookie_name(scope: Scope) -> str:
    # Browsers share cookies between the ports of a host, each of which may be a server.
    return f"sketch-search-{scope['server'][1]}"


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Keeps no cookie but the token: the framework parses cookies in time quadratic in their length."""
    cookie, kept = cookie_name(scope).encode(), list[tuple[bytes, bytes]]()
    for name, value in scope["headers"]:
        if name != b"cookie":
            kept.append((name, value))
            continue
        for part in value.split(b";"):
            key, _, token = part.strip().partition(b"=")
            if key == cookie and _TOKEN.fullmatch(token):
                kept.append((name, cookie + b"=" + token))
    return kept


class Buckets:
    """Keeps a token bucket for each client: it holds a minute's requests and fills up evenly."""

    def __init__(self, per_minute: int) -> None:
        self._most = float(per_minute)
        # client -> tokens left, and when that was; a client that was forgotten starts anew
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(CLIENTS)

    def take(self, client: str) -> float:
        """Takes a token and returns 0.0, or returns the seconds until there is one."""
        now = monotonic()
        left, then = self._left.get(client, (self._most, now))
        left = min(self._most, left + (now - then) * self._most / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self._most
        self._left[client] = (left if wait else left - 1, now)
        return wait


def network(address: str) -> str:
    """Returns a client's IPv4 address, or the /64 network of its IPv6 address, which one household has; else ""."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        return "127.0.0.1" if ip.is_loopback else str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


# Characters that a pipe with free space accepts at once: 4096 bytes, at most four for a character.
_PIPE_TAKES = 1024


def as_json(message: str) -> str:
    return JsonLines().format(log.makeRecord(log.name, logging.INFO, "", 0, message, (), None))


def configure_logging(log_format: Literal["text", "json"]) -> None:
    """Writes the log to standard error in this format. A terminal shows no requests: they hide the address."""
    handler = _Handler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # It logs a line for every malformed form.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    if log_format == "text" and sys.stderr.isatty():
        access_log.setLevel(logging.WARNING)


class _Handler(logging.StreamHandler[TextIO]):
    """Drops lines that a full pipe does not accept. Waiting for a reader would stop the server."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + self.terminator
        with suppress(OSError, ValueError):
            for start in range(0, len(line), _PIPE_TAKES):
                if sys.platform != "win32" and not select.select((), (self.stream,), (), 0)[1]:
                    return
                self.stream.write(line[start : start + _PIPE_TAKES])
                self.flush()


class TextLines(logging.Formatter):
    """Time (UTC), level, and the message; for a request, its fields as key=value."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, and its indented trace. File names cannot add lines."""
        line = printable(f"{self.formatTime(record)} {record.levelname} {record.getMessage()}")
        trace = self.formatException(record.exc_info).splitlines() if record.exc_info else ()
        return "\n".join([line, *(f"  {printable(part)}" for part in trace)])


class JsonLines(TextLines):
    """One JSON object per line: ``time``, ``level``, ``logger``; ``message``, or the fields of a request; ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        if (access := getattr(record, "access", None)) is not None:
            return json.dumps({**line, **access})
        line["message"] = record.getMessage()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)

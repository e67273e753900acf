"""Request ids, known hosts and error answers: what all requests have in common."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import VERDICTS, QueueFull, ServiceFault, Unauthorized
from service.schemas import ErrorDetail, ErrorResponse, describe_problems

# A request id that may be echoed and logged as it is.
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The dot behind a host's name, before the port if there is one.
_FINAL_DOT = re.compile(r"\.(?=(:[0-9]*)?\Z)")

log = logging.getLogger("sketch_search")


class RequestIds:
    """ASGI middleware: puts ``X-Request-ID`` on every answer; a 500 for an unforeseen error tells nothing else.

    An id that comes with the request is kept if it is harmless. It is also ``request.state.request_id``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _SANE_ID.fullmatch(offered) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        # Nothing further out handles errors: whatever went wrong is logged in full, and the client is told an id.
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            answer = error_answer(500, "internal_error", "Something went wrong here; the log has it.", request_id)
            await answer(scope, receive, send_with_id)


class KnownHosts:
    """ASGI middleware: refuses a request whose ``Host`` header names none of ``hosts``.

    A hostile web page can have its own host name resolve to this machine, and then read the answers as if they came
    from its own server. The Host header still bears that name. A request that names no host at all passes: health
    checkers that speak HTTP/1.0 send such ones, and no browser does. To be added inside of RequestIds.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        """``hosts``: names and addresses without a port; "*.example.org" is all below it, "*" any."""
        self._app = app
        known = [host.removesuffix(".") for host in hosts]
        self._check = TrustedHostMiddleware(self._passed, known, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        if host:
            # "localhost." is localhost: the dot at the end only says that the name is complete.
            named = {**scope, "headers": [(b"host", _FINAL_DOT.sub("", host).encode("latin-1"))]}
            # Its own refusal is plain text: it is thrown away, and answered below like all errors.
            await self._check(named, receive, _say_nothing)
        if not host or scope["state"].get("known_host"):
            await self._app(scope, receive, send)
            return
        message = "The Host header names no host of this server; if it should, list it in SBIR_ALLOWED_HOSTS."
        await error_answer(400, "bad_host", message, scope["state"]["request_id"])(scope, receive, send)

    @staticmethod
    async def _passed(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["known_host"] = True


async def _say_nothing(_: Message) -> None:
    return


def error_answer(
    status: int, code: str, message: str, request_id: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The one shape that errors have."""
    body = ErrorResponse(error=ErrorDetail(code=code, message=message, request_id=request_id))
    return JSONResponse(body.model_dump(), status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Have every typed error, and those of the framework, answered as ``VERDICTS`` says."""
    for kind in VERDICTS:
        app.exception_handler(kind)(_answer_typed)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http)
    app.exception_handler(ClientDisconnect)(_answer_nobody)


async def _answer_typed(request: Request, error: Exception) -> Response:
    verdict = next(VERDICTS[kind] for kind in type(error).__mro__ if kind in VERDICTS)
    headers = {}
    if isinstance(error, QueueFull):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return error_answer(verdict.status, verdict.code, _sentence(error), request.state.request_id, headers)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    problems = error.errors()
    if any(problem["loc"][0] == "path" for problem in problems):
        return error_answer(404, "not_found", "There is nothing here.", request.state.request_id)
    # A problem's place is ("query", "nprobe", "constrained-int"); the parameter is nprobe.
    named = [{**problem, "loc": problem["loc"][1:] or problem["loc"]} for problem in problems]
    return error_answer(422, "bad_parameter", f"{describe_problems(named)}.", request.state.request_id)


async def _answer_http(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    message = {404: "There is nothing here.", 405: f"{request.method} is not for this path."}.get(
        error.status_code, str(error.detail)
    )
    headers = dict(error.headers or {})
    # What answers GET answers HEAD (see ``service.http.middleware.head``).
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return error_answer(error.status_code, code, message, request.state.request_id, headers)


async def _answer_nobody(request: Request, error: ClientDisconnect) -> Response:
    return error_answer(499, "client_gone", "The upload broke off.", request.state.request_id)


def _sentence(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ServiceFault):
        # It is a sentence already. It may begin with the name of a parameter, which keeps its small letter.
        return text
    return text[:1].upper() + text[1:]

"""HEAD: what GET would answer, without its body."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """ASGI middleware: has a HEAD request handled as a GET. The HTTP server leaves the body out.

    It is the innermost one: to all others the request is a HEAD.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy, because the HTTP server looks into its own one whether a body may be sent.
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send)
        finally:
            # The access log names requests by their route.
            if "route" in as_get:
                scope["route"] = as_get["route"]

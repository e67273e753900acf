"""The headers that tell browsers what they may do with an answer."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class SecurityHeaders:
    """ASGI middleware: the strictest of these headers on every answer that does not bring its own.

    The page brings a policy with which it can work (see ``service.http.page``).
    """

    def __init__(self, app: ASGIApp, *, shared: bool) -> None:
        """``shared``: whether pages of other origins may show the images: so where CORS lists any."""
        self._app = app
        self._headers = {
            # An image or a JSON answer that is opened by itself loads, runs and sends nothing.
            "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            # An img element on any web page would otherwise get the photos of whoever looks at it.
            "Cross-Origin-Resource-Policy": "cross-origin" if shared else "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)

"""How much a query string may hold."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.answers import error_answer

# No path takes a quarter of either.
MOST_PARAMETERS = 64
MOST_BYTES = 8 * 1024


class LimitedQuery:
    """ASGI middleware: 422 for a query of too many parameters or bytes, before anything takes it apart.

    What reads a query looks at each name several times. Requests of 60 KB of names would keep all others waiting. To be
    added inside of RequestIds.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = _problem(scope["query_string"]) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
            return
        await error_answer(422, "bad_parameter", problem, scope["state"]["request_id"])(scope, receive, send)


def _problem(query: bytes) -> str | None:
    """What is wrong with a query string, in a sentence; None where nothing is."""
    if len(query) > MOST_BYTES:
        return f"The query has {len(query)} bytes; at most {MOST_BYTES} are taken. A sketch is sent as the body."
    parameters = query.count(b"&") + 1
    if parameters > MOST_PARAMETERS:
        return f"The query has {parameters} parameters; at most {MOST_PARAMETERS} are taken."
    return None

"""The web page: its files, with the headers that keep it to itself."""

from __future__ import annotations

from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from service.errors import NotFound

#: Media types of what the page loads. Not those of the system: where it has others, browsers refuse the modules.
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # blob: is for images that a script has fetched or was given; nothing may be loaded from another host.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
_FILES = StaticFiles(packages=[("service", "page")])

# These routes need no API key, because the page is what asks for it. They are not part of the HTTP API, so its document
# does not list them.
page = APIRouter(include_in_schema=False)


@page.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return await _file("index.html", "text/html; charset=utf-8", request)


# Routes and not a mount: the access log names requests by their route.
@page.get("/page/{path:path}")
async def part(request: Request, path: str) -> Response:
    """A file that the page loads. Raises NotFound for all others: index.html would find nothing from this address."""
    kind = KINDS.get(PurePosixPath(path).suffix)
    if kind is None:
        raise NotFound("The page has no such file.")
    return await _file(path, kind, request)


async def _file(path: str, kind: str, request: Request) -> Response:
    """The file, or a 304 where the browser has it; raises HTTPException 404 for what is not in the page's folder."""
    answer = await _FILES.get_response(path, request.scope)
    answer.headers.update(_HEADERS)
    if answer.status_code == 200:
        answer.headers["Content-Type"] = kind
    return answer

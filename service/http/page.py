"""The web page: a fixed list of packaged files, with the headers that keep it to itself."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import NotFound
from service.http.routes import is_known

_SCRIPT = "text/javascript; charset=utf-8"
_STYLE = "text/css; charset=utf-8"
_MODULES = (
    "about",
    "api",
    "canvas",
    "cursor",
    "desk",
    "dom",
    "examples",
    "groups",
    "ink",
    "keys",
    "main",
    "notice",
    "overlay",
    "pages",
    "query",
    "regions",
    "results",
    "search",
    "store",
    "viewer",
    "views",
    "why",
    "words",
)
#: What the page loads, and its media types. A name is looked up here and never becomes a path by itself.
FILES = {
    "icon.svg": "image/svg+xml",
    **{f"{name}.css": _STYLE for name in ("base", "desk", "dialogs", "found", "why")},
    **{f"{name}.js": _SCRIPT for name in _MODULES},
}
_HEADERS = {
    # blob: are images that a script has fetched or was given; nothing may be loaded from anywhere else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}

# Without the API key: the page is what asks for it. Not part of the HTTP API, so not in its document.
page = APIRouter(include_in_schema=False)


@page.get("/")
def index(request: Request) -> Response:
    """The page."""
    return _file("index.html", "text/html; charset=utf-8", request)


@page.get("/page/{name}")
def part(request: Request, name: str) -> Response:
    """A file that the page loads."""
    if name not in FILES:
        raise NotFound("The page has no such file.")
    return _file(name, FILES[name], request)


def _file(name: str, kind: str, request: Request) -> Response:
    data = resources.files("service").joinpath("page", name).read_bytes()
    headers = {**_HEADERS, "ETag": f'"{hashlib.sha256(data).hexdigest()[:32]}"'}
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)

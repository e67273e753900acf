"""The web page: its files, with the headers that keep it to itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

import service
from service.errors import NotFound
from service.http.answers import is_known

# Media types of what the page loads. Not those of the system: where it has others, browsers refuse the modules.
_KINDS = {
    ".html": "text/html; charset=utf-8",
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
_FOLDER = Path(service.__file__).parent / "page"
_INDEX = "index.html"
# All that is served, by its path below the folder: the content, and the headers it is sent with.
_FILES = {
    file.relative_to(_FOLDER).as_posix(): (
        content := file.read_bytes(),
        {**_HEADERS, "Content-Type": _KINDS[file.suffix], "ETag": f'"{hashlib.sha256(content).hexdigest()}"'},
    )
    for file in _FOLDER.rglob("*")
    if file.suffix in _KINDS
}

# These routes need no API key, because the page is what asks for it. They are not part of the HTTP API, so its document
# does not list them.
page = APIRouter(include_in_schema=False)


@page.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _file(_INDEX, request)


# One route for each file would do, too; but the access log names requests by their route.
@page.get("/page/{path:path}")
async def part(request: Request, path: str) -> Response:
    """A file that the page loads. Raises NotFound for all others: index.html would find nothing from this address."""
    if path not in _FILES or path == _INDEX:
        raise NotFound("The page has no such file.")
    return _file(path, request)


def _file(path: str, request: Request) -> Response:
    """The file, or a 304 where the browser has it."""
    content, headers = _FILES[path]
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)

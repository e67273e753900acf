"""Serves the page: its markup, and the files that it loads."""

import hashlib
import pathlib
import secrets
from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from sketch_search import service
from sketch_search.service.errors import NotFound
from sketch_search.service.http.answers import is_known
from sketch_search.service.http.context import Ctx
from sketch_search.service.http.middleware import cookie_name

# Media types of what the page loads. Not the system's: with others browsers refuse the modules.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_UNFRAMED = "frame-ancestors 'none'"
_HEADERS = {
    # blob: is for images that a script has fetched or was given; nothing may be loaded from another host.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    f"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; {_UNFRAMED}",
    "Cache-Control": "no-cache",
}
_FOLDER = pathlib.Path(service.__file__).parent / "page"
_INDEX = "index.html"
# All files served, by path below the folder: the content, and its headers.
_FILES = {
    file.relative_to(_FOLDER).as_posix(): (
        content := file.read_bytes(),
        {**_HEADERS, "Content-Type": _MEDIA_TYPES[file.suffix], "ETag": f'"{hashlib.sha256(content).hexdigest()}"'},
    )
    for file in _FOLDER.rglob("*")
    if file.suffix in _MEDIA_TYPES
}

# These routes need no API key, because the page prompts for it. They are not part of the HTTP API, so its document does
# not list them.
page = APIRouter(include_in_schema=False)


@page.get("/")
async def index(request: Request, ctx: Ctx, token: str | None = None) -> Response:
    """Returns the page. A token in its address becomes a cookie, so that the address can be copied without it."""
    if token is None:
        return _file(_INDEX, request, ctx.settings.frame_ancestors)
    answer = Response(status_code=303, headers={**_HEADERS, "Cache-Control": "no-store", "Location": "./"})
    if secrets.compare_digest(token.encode(), ctx.token.encode()):
        secure = request.url.scheme == "https"
        answer.set_cookie(cookie_name(request.scope), token, secure=secure, httponly=True, samesite="strict")
    return answer


# One route for all files, because the access log names requests by their route.
@page.get("/page/{path:path}")
async def part(request: Request, path: str) -> Response:
    """Returns a file that the page loads. Raises NotFound for others: index.html would not work at this address."""
    if path not in _FILES or path == _INDEX:
        raise NotFound("The page has no file of this name.")
    return _file(path, request)


def _file(path: str, request: Request, frames: Sequence[str] = ()) -> Response:
    content, headers = _FILES[path]
    if frames:
        policy = headers["Content-Security-Policy"].replace(_UNFRAMED, f"frame-ancestors 'self' {' '.join(frames)}")
        headers = {**headers, "Content-Security-Policy": policy}
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)

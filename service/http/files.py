"""Serves files: those of the page; and those of photos, one, or several in a ZIP file."""

import hashlib
import io
import re
import secrets
import time
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import IO, Any, cast

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import Response

from sketch_search import service
from sketch_search.indexer import PhotoEntry, PhotoUnavailable
from sketch_search.service.engine import SearchEngine
from sketch_search.service.errors import BrokenOff, NotFound, QueueFull
from sketch_search.service.http.context import Context, Ctx
from sketch_search.service.http.middleware import cookie_name

# Characters that some system does not allow in a name, or misreads.
_UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]')
# What Windows opens as a device, whatever follows.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3]|conin\$|conout\$) *(?:\..*)?", re.I)
# Bytes of a file that are read at a time.
PART = 1 << 20
_MISSING = "not in this file.txt"
# Media types of what the page loads. Not the system's: with others browsers refuse the modules.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
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
_FOLDER = Path(service.__file__).parent / "page"
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


class _Sink(io.RawIOBase):
    """Holds bytes written but not sent yet. It cannot seek, so ``zipfile`` writes in one pass."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


async def parts(
    ctx: Context, engine: SearchEngine, entry: PhotoEntry, size: int, part: range | None = None
) -> AsyncIterator[bytes]:
    """Yields the bytes of a photo's file, with at most PART in memory, however slow the client is."""
    selected = part or range(size)
    for start in selected[::PART]:
        count = min(PART, selected.stop - start)
        try:
            async with ctx.originals.turn(ctx.client):
                read = await run_sync(engine.gallery.part_of_photo, entry.id, size, start, count)
            yield read
        except (PhotoUnavailable, QueueFull) as error:
            raise BrokenOff(str(error)) from error


async def zip_photos(ctx: Context, engine: SearchEngine, photos: Sequence[PhotoEntry]) -> AsyncIterator[bytes]:
    """Yields the bytes of a ZIP file with these photos, with at most one part in memory.

    A text file in the archive names those that are gone or have changed.
    """
    sink, missing = _Sink(), list[str]()
    names = file_names([_MISSING, *(photo.paths[0] for photo in photos)])[1:]
    # Pictures are compressed already.
    with zipfile.ZipFile(cast(IO[bytes], sink), "w") as archive:
        for photo, name in zip(photos, names, strict=True):
            try:
                async with ctx.originals.turn(ctx.client):
                    size, _ = await run_sync(engine.gallery.original, photo.id)
            except PhotoUnavailable as error:
                missing.append(f"{photo.paths[0]}: {error}\n")
                continue
            entry = zipfile.ZipInfo(name, _local_time(photo))
            entry.file_size = size
            with archive.open(entry, "w") as file:
                async for part in parts(ctx, engine, photo, size):
                    file.write(part)
                    yield sink.take()
        if missing:
            archive.writestr(zipfile.ZipInfo(_MISSING), "".join(missing))
    yield sink.take()


def _local_time(photo: PhotoEntry) -> tuple[int, int, int, int, int, int]:
    """Returns when the file was last changed, within the range of ZIP files; now if that is unknown."""
    seconds = time.time() if photo.changed is None else photo.changed / 1e9
    year, month, day, hour, minute, second = time.localtime(min(max(seconds, 0), 2**32))[:6]
    return (year, month, day, hour, minute, second) if year >= 1980 else (1980, 1, 1, 0, 0, 0)


def file_names(paths: Sequence[str]) -> list[str]:
    """Returns a name for each path that every system accepts. Names differ by more than the case of letters."""
    names: dict[str, str] = {}
    for path in paths:
        # A name that begins with a dot would be hidden, or a folder.
        clean = _UNSAFE.sub("_", path.rpartition("/")[2]).lstrip(".").rstrip(". ") or "_"
        plain = PurePath(f"_{clean}" if _DEVICE.fullmatch(clean) else clean)
        name, number = plain.name, 1
        while name.casefold() in names:
            number += 1
            name = f"{plain.stem} ({number}){plain.suffix}"
        names[name.casefold()] = name
    return list(names.values())


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


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """Answers a request whose If-None-Match names the ETag of an answer with these headers, or its weak form."""
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    return Response(status_code=304, headers=headers) if known & {"*", headers["ETag"]} else None


def _file(path: str, request: Request, frames: Sequence[str] = ()) -> Response:
    content, headers = _FILES[path]
    if frames:
        policy = headers["Content-Security-Policy"].replace(_UNFRAMED, f"frame-ancestors 'self' {' '.join(frames)}")
        headers = {**headers, "Content-Security-Policy": policy}
    return not_modified(request, headers) or Response(content, headers=headers)
